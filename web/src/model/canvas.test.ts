import { expect, it } from "vitest";
import type { Sizes } from "../server/session";
import { outputShape } from "./canvas";

const SIZES: Sizes = { "480p": { "16:9": [832, 480], "1:1": [480, 480], "9:16": [480, 832] } };

it.each([
  ["16:9", null, "16:9"],
  ["auto", null, "16:9"],
  ["auto", { width: 1000, height: 1000 }, "1:1"],
  ["auto", { width: 1080, height: 1920 }, "9:16"],
  ["auto", { width: 4000, height: 3000 }, "1:1"],
  ["auto", { width: 1350, height: 1000 }, "16:9"],
  ["1:1", { width: 1080, height: 1920 }, "1:1"],
])("%s with a first condition of %o becomes %s", (aspect, first, found) => {
  expect(outputShape(SIZES, "480p", aspect, first)?.aspect).toBe(found);
});
