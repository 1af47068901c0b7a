/** The workers of the server. */

import { signal } from "@preact/signals";
import { getJson } from "./http";

export interface Worker {
  readonly device: string;
  readonly model: string;
  readonly ready: boolean;
  /** What requests may choose; null if the server does not know. */
  readonly recipes: readonly string[] | null;
  /** Whether the model takes no guidance, and so no negative prompt. */
  readonly distilled: boolean;
  /** Whether prompts can be expanded. */
  readonly expands: boolean;
  /** What requests call the LoRAs that ship with the model. */
  readonly loras: readonly string[];
}

const PAUSE = 10_000;

export const workers = signal<readonly Worker[] | null>(null);

/** Polls the server until the returned function is called. */
export function followHealth(): () => void {
  const poll = () => void getJson<{ workers: Worker[] }>("health").then((found) => (workers.value = found.workers), () => null);
  poll();
  const timer = setInterval(poll, PAUSE);
  return () => clearInterval(timer);
}
