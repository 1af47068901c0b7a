import { expect, it } from "vitest";
import { problemsNow } from "./errors";

const REFUSAL = {
  input: { prompt: "a fox", images: [{ image_url: "http://a/b.png" }] },
  problems: [
    { loc: ["body", "images", 0, "image_url"], msg: "Not found." },
    { loc: ["body", "prompt"], msg: "Too short." },
  ],
};

it("shows problems until their field is changed", () => {
  expect([...problemsNow(REFUSAL, REFUSAL.input)]).toEqual([
    ["images.0.image_url", "Not found."],
    ["prompt", "Too short."],
  ]);
  expect([...problemsNow(REFUSAL, { ...REFUSAL.input, prompt: "a red fox" }).keys()]).toEqual(["images.0.image_url"]);
  expect([...problemsNow(REFUSAL, { prompt: "a fox" }).keys()]).toEqual(["prompt"]);
  expect([...problemsNow(null, {})]).toEqual([]);
});
