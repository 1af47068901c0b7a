/** Which workers there are. */

import { signal } from "@preact/signals";
import { getJson } from "./http";

export interface Worker {
  readonly device: string;
  readonly model: string;
  readonly ready: boolean;
}

const PAUSE = 10_000;

export const workers = signal<readonly Worker[] | null>(null);

/** Returns how to stop. */
export function followHealth(): () => void {
  const look = () => void getJson<{ workers: Worker[] }>("health").then((found) => (workers.value = found.workers), () => null);
  look();
  const timer = setInterval(look, PAUSE);
  return () => clearInterval(timer);
}
