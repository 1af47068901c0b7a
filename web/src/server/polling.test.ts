import { expect, it } from "vitest";
import { backedOff } from "./polling";

it("asks less often while the server is away, and at the usual pace when it is back", () => {
  expect([0, 1, 2, 3, 4, 5, 50].map((failures) => backedOff(1500, failures))).toEqual([1500, 3000, 6000, 12_000, 24_000, 30_000, 30_000]);
  expect(backedOff(60_000, 3)).toBe(60_000);
});
