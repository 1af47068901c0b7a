/** Shows one short message at a time. Messages about a field are shown at the field instead. */

import { signal } from "@preact/signals";

const DURATION = 6000;

export const toast = signal<string | null>(null);
let timer = 0;

export function say(message: string): void {
  toast.value = message;
  clearTimeout(timer);
  timer = window.setTimeout(() => (toast.value = null), DURATION);
}
