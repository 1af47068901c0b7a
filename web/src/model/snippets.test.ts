import { expect, it } from "vitest";
import { LANGUAGES, snippet } from "./snippets";

const TARGET = { baseUrl: "https://example.com/video", endpoint: "owner/alias/path", model: "demo" };

it.each(LANGUAGES)("%s escapes special characters", (language) => {
  const prompt = `a "red" ball's \\ path\n$HOME`;
  const code = snippet(language, { prompt, expand_prompt: true, images: [] }, TARGET);
  expect(code).toContain(language === "curl" ? String.raw`ball'\''s \\ path\n$HOME` : String.raw`ball's \\ path\n$HOME`);
});

it("writes Python literals", () => {
  const code = snippet("Python", { reverse_video: true, seed: null, loras: [{ scale: 0.5 }] }, TARGET);
  expect(code).toContain('"reverse_video": True,');
  expect(code).toContain('"seed": None,');
  expect(code).toContain('"scale": 0.5,');
});

it.each(LANGUAGES)("%s keeps each digit of a long seed", (language) => {
  const prompt = '"seed": "1"';
  const code = snippet(language, { prompt, seed: "9007199254740993" }, TARGET);
  expect(code).toMatch(language === "JavaScript" ? /"seed": "9007199254740993"/ : /"seed": 9007199254740993\b/);
  expect(code).toContain(String.raw`\"seed\": \"1\"`);
});
