import { expect, it } from "vitest";
import { CENTRE, cropBox, isCropped, movedFocus } from "./crop";

const WIDE = { width: 1280, height: 720 };
const SQUARE = { width: 480, height: 480 };

it("crops to the middle, without stretching", () => {
  expect(cropBox(WIDE, SQUARE, CENTRE)).toEqual({ left: 0.21875, top: 0, width: 0.5625, height: 1 });
  expect(isCropped(cropBox(WIDE, { width: 640, height: 360 }, CENTRE))).toBe(false);
});
it("follows the focus as far as the picture goes", () => {
  expect(cropBox(WIDE, SQUARE, { x: 0.3, y: 0.5 }).left).toBeCloseTo(0.01875);
  expect(cropBox(WIDE, SQUARE, { x: 0, y: 1 })).toMatchObject({ left: 0, top: 0 });
  expect(cropBox(WIDE, SQUARE, { x: 1, y: 0 })).toMatchObject({ left: 0.4375, top: 0 });
});
it("moves with the pointer and stops at the edge", () => {
  const box = cropBox(WIDE, SQUARE, CENTRE);
  expect(movedFocus(box, 0.1, 0.7)).toEqual({ x: 0.6, y: 0.5 });
  expect(movedFocus(box, 5, 0).x).toBeCloseTo(0.719);
});
