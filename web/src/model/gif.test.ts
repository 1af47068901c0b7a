import { expect, it } from "vitest";
import { countPictures } from "./gif";

const HEAD = Array.from("GIF89a", (letter) => letter.charCodeAt(0));
const SCREEN = [1, 0, 1, 0, 0x80, 0, 0, ...[0, 0, 0, 255, 255, 255]];
const CONTROL = [0x21, 0xf9, 4, 0, 10, 0, 0, 0];
const PICTURE = [0x2c, 0, 0, 0, 0, 1, 0, 1, 0, 0, 2, 2, 0x4c, 1, 0];

it("counts pictures and skips extensions", () => {
  const file = [...HEAD, ...SCREEN, ...CONTROL, ...PICTURE, ...CONTROL, ...PICTURE, 0x3b];
  expect(countPictures(new Uint8Array(file))).toBe(2);
});
it("counts up to the point where a file is cut off", () => expect(countPictures(new Uint8Array([...HEAD, ...SCREEN, ...PICTURE, 0x2c]))).toBe(2));
it("finds none in other files", () => expect(countPictures(new Uint8Array([0x89, 0x50, 0x4e, 0x47]))).toBe(0));
