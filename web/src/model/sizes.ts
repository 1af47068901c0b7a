/** The sizes of pictures and clips that the page knows only by their URL. The browser reports them when it loads one. */

import { signal } from "@preact/signals";
import type { Size } from "./canvas";

export const sizes = signal<ReadonlyMap<string, Size>>(new Map());

export function learnSize(url: string, width: number, height: number): void {
  if (width && height && !sizes.value.has(url)) sizes.value = new Map(sizes.value).set(url, { width, height });
}
