/** One short message at a time, for what belongs to no field. */

import { signal } from "@preact/signals";

const SHOWN = 6000;

export const toast = signal<string | null>(null);
let timer = 0;

export function say(message: string): void {
  toast.value = message;
  clearTimeout(timer);
  timer = window.setTimeout(() => (toast.value = null), SHOWN);
}
