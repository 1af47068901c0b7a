/** The workers of the server. */

import { signal } from "@preact/signals";
import { getJson } from "./http";
import { keepAsking } from "./polling";

export interface Worker {
  readonly device: string;
  readonly model: string;
  readonly ready: boolean;
  // Servers of an older release do not say what follows.
  /** The queue that it works on. */
  readonly pool?: string;
  /** What requests may choose; null if the server does not know. */
  readonly recipes?: readonly string[] | null;
  /** Whether the model takes no guidance, and so no negative prompt. */
  readonly distilled?: boolean;
  /** Whether prompts can be expanded. */
  readonly expands?: boolean;
  /** What requests call the LoRAs that ship with the model. */
  readonly loras?: readonly string[];
}

const PAUSE = 10_000;

export const workers = signal<readonly Worker[] | null>(null);
/** Whether the server did not answer when it was last asked, so that its workers may be others by now. */
export const isStale = signal(false);

/** Polls the server until the returned function is called. */
export function followHealth(): () => void {
  const ask = async () => {
    const found = await getJson<{ workers: Worker[] }>("health").catch(() => null);
    isStale.value = found === null;
    if (found) workers.value = found.workers;
    return found !== null;
  };
  return keepAsking(ask, () => PAUSE).stop;
}
