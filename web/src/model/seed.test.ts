import { expect, it } from "vitest";
import { parseJson } from "../server/http";
import { parseSeed, seedsFrom } from "./seed";

it.each([
  ["7", 7],
  [" -3 ", -3],
  ["9007199254740991", 2 ** 53 - 1],
  ["9007199254740993", "9007199254740993"],
  ["-9223372036854775808", "-9223372036854775808"],
  ["9223372036854775808", null],
  ["1.5", null],
  ["1e3", null],
  ["", null],
])("reads %o as %o", (text, seed) => {
  expect(parseSeed(text)).toBe(seed);
});

it("counts up from a seed, also past what JavaScript's numbers hold", () => {
  expect(seedsFrom(2 ** 53 - 1, 3)).toEqual([2 ** 53 - 1, "9007199254740992", "9007199254740993"]);
  expect(seedsFrom("9223372036854775807", 2)).toEqual(["9223372036854775807", "-9223372036854775808"]);
  expect(seedsFrom(null, 2)).toEqual([null, null]);
});

it("keeps the digits of seeds in the server's answers", () => {
  const prompt = '"seed": 9007199254740993';
  const text = `{"seed": 9007199254740993, "input": ${JSON.stringify({ prompt })}, "other": {"seed":-9007199254740993}, "small": {"seed": 7}}`;
  expect(parseJson(text)).toEqual({ seed: "9007199254740993", input: { prompt }, other: { seed: "-9007199254740993" }, small: { seed: 7 } });
});
