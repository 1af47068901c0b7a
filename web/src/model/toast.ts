/** Shows short messages. Messages about a field are shown at the field instead. */

import { signal } from "@preact/signals";

/** Milliseconds. */
const DURATION = 6000;
const ACTION_DURATION = 12_000;
const MAX_SHOWN = 5;

export interface Action {
  readonly label: string;
  readonly run: () => void;
}

export interface Toast {
  readonly id: number;
  readonly text: string;
  readonly action: Action | null;
}

export const toasts = signal<readonly Toast[]>([]);
let count = 0;

export function say(text: string, action: Action | null = null): void {
  const id = ++count;
  toasts.value = [...toasts.value.filter((each) => each.text !== text), { id, text, action }].slice(-MAX_SHOWN);
  setTimeout(() => dismiss(id), action ? ACTION_DURATION : DURATION);
}

export function dismiss(id: number): void {
  toasts.value = toasts.value.filter((each) => each.id !== id);
}

/** Removes the messages whose action belongs to a step that is no longer the last one. */
export function dropActions(): void {
  if (toasts.value.some((each) => each.action)) toasts.value = toasts.value.filter((each) => !each.action);
}
