/** The workers of the server. */

import { signal } from "@preact/signals";
import { getJson } from "./http";

export interface Worker {
  readonly device: string;
  readonly model: string;
  readonly ready: boolean;
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
