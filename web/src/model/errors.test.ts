import { expect, it } from "vitest";
import { currentProblems } from "./errors";

const REFUSAL = {
  input: { prompt: "a fox", images: [{ image_url: "http://a/b.png" }] },
  problems: [
    { loc: ["body", "images", 0, "image_url"], msg: "Not found." },
    { loc: ["body", "prompt"], msg: "Too short." },
  ],
};

it("keeps a problem until its field changes", () => {
  expect([...currentProblems(REFUSAL, REFUSAL.input)]).toEqual([
    ["images.0.image_url", "Not found."],
    ["prompt", "Too short."],
  ]);
  expect([...currentProblems(REFUSAL, { ...REFUSAL.input, prompt: "a red fox" }).keys()]).toEqual(["images.0.image_url"]);
  expect([...currentProblems(REFUSAL, { prompt: "a fox" }).keys()]).toEqual(["prompt"]);
  expect([...currentProblems(null, {})]).toEqual([]);
});
