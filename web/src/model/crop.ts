/** Which part of a picture the video shows. The server crops in the same way, in `src/keyreel/media/images.py`. */

import type { Size } from "./canvas";

/** Shares of the width and the height of a picture. */
export interface Point {
  readonly x: number;
  readonly y: number;
}

/** Shares of the picture's width and height. */
export interface Box {
  readonly left: number;
  readonly top: number;
  readonly width: number;
  readonly height: number;
}

export const CENTRE: Point = { x: 0.5, y: 0.5 };

/** The largest part of the picture with the shape of the video whose centre is as near to `focus` as possible. */
export function cropBox(picture: Size, shape: Size, focus: Point): Box {
  const scale = Math.max(shape.width / picture.width, shape.height / picture.height);
  const width = Math.min(1, shape.width / (scale * picture.width));
  const height = Math.min(1, shape.height / (scale * picture.height));
  return { left: within(focus.x - width / 2, 1 - width), top: within(focus.y - height / 2, 1 - height), width, height };
}

/** The focus that moves the box by these shares of the picture. A side that fills the picture stays in the middle. */
export function movedFocus(box: Box, dx: number, dy: number): Point {
  return { x: centre(box.left + dx, box.width), y: centre(box.top + dy, box.height) };
}

/** Whether the video shows less than the whole picture. Less than half a per cent is not worth showing. */
export function isCropped({ width, height }: Box): boolean {
  return Math.min(width, height) < 0.995;
}

function centre(start: number, size: number): number {
  if (size >= 1) return 0.5;
  return Math.round((within(start, 1 - size) + size / 2) * 1000) / 1000;
}

function within(value: number, max: number): number {
  return Math.max(0, Math.min(max, value));
}
