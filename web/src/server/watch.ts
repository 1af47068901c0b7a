/** One request from moment to moment: fal's status stream, as any program sees it. */

import { signal } from "@preact/signals";
import { fal } from "./fal";
import { type Line, type Progress, refresh } from "./requests";

export interface Watched {
  readonly id: string;
  readonly state: string;
  readonly position: number | null;
  readonly progress: Progress | null;
  readonly lines: readonly Line[];
}

interface Update {
  readonly status: string;
  readonly queue_position?: number;
  readonly progress?: Progress | null;
  readonly logs?: readonly Line[] | null;
}

const RETRY_PAUSE = 1000;

export const watched = signal<Watched | null>(null);

/** Returns how to stop. */
export function watch(endpoint: string, id: string): () => void {
  const abort = new AbortController();
  watched.value = null;
  void stream(endpoint, id, abort.signal);
  return () => abort.abort();
}

async function stream(endpoint: string, id: string, signal: AbortSignal): Promise<void> {
  const isOver = () => signal.aborted;
  while (!isOver()) {
    const done = await once(endpoint, id, signal).catch(() => false);
    if (isOver()) return;
    await refresh();
    if (done) return;
    // The connection was lost: the stream begins anew with the whole log.
    await new Promise((resolve) => setTimeout(resolve, RETRY_PAUSE));
  }
}

async function once(endpoint: string, id: string, signal: AbortSignal): Promise<boolean> {
  let lines: readonly Line[] = [];
  const updates = await fal.queue.streamStatus(endpoint, { requestId: id, logs: true, abortSignal: signal });
  // The loop below hears of it, too.
  updates.done().catch(() => null);
  for await (const update of updates as AsyncIterable<Update>) {
    lines = [...lines, ...(update.logs ?? [])];
    const position = update.queue_position ?? null;
    watched.value = { id, state: update.status, position, progress: update.progress ?? null, lines };
    if (update.status === "COMPLETED") return true;
  }
  return false;
}
