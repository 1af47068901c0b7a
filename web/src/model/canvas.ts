/** The size of the video, in pixels. */

import type { Sizes } from "../server/session";

export interface Size {
  readonly width: number;
  readonly height: number;
}

export interface Shape extends Size {
  readonly aspect: string;
}

/**
 * The size for a resolution and an aspect ratio. `auto` selects the aspect ratio that is nearest to `first`, the size
 * of the first condition. Without a condition it selects the first one in `sizes`.
 */
export function outputShape(sizes: Sizes, resolution: string, aspect: string, first: Size | null): Shape | null {
  const shapes = sizes[resolution];
  if (!shapes) return null;
  const name = aspect in shapes ? aspect : nearest(shapes, first);
  const size = shapes[name];
  return size ? { aspect: name, width: size[0], height: size[1] } : null;
}

function nearest(shapes: Record<string, [number, number]>, first: Size | null): string {
  const names = Object.keys(shapes);
  if (!first) return names[0] ?? "";
  const wanted = Math.log(first.width / first.height);
  const distance = (name: string) => {
    const [width, height] = ratioOf(name);
    return Math.abs(Math.log(width / height) - wanted);
  };
  return names.reduce((best, name) => (distance(name) < distance(best) ? name : best), names[0] ?? "");
}

/** Width and height of an aspect ratio such as `"16:9"`. */
export function ratioOf(aspect: string): [number, number] {
  const [width, height] = aspect.split(":").map(Number);
  return [width || 1, height || 1];
}
