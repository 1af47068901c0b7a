/** Pixels: what the user gets. The sizes are the server's. */

export interface Size {
  readonly width: number;
  readonly height: number;
}

export type Sizes = Record<string, Record<string, [number, number]>>;

export interface Shape extends Size {
  readonly aspect: string;
}

/** `auto` takes the shape nearest to `first`, the first condition's size; without one the first there is. */
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

/** `"16:9"` as numbers. */
export function ratioOf(aspect: string): [number, number] {
  const [width, height] = aspect.split(":").map(Number);
  return [width || 1, height || 1];
}
