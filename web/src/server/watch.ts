/** Follows one request through fal's status stream. */

import { signal } from "@preact/signals";
import { fal } from "./fal";
import { backedOff } from "./polling";
import { type Line, type Progress, refresh, trouble } from "./requests";

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

/** Updates `watched` until the request ends or the returned function is called. */
export function watch(endpoint: string, id: string): () => void {
  const abort = new AbortController();
  watched.value = null;
  void followUntilDone(endpoint, id, abort.signal);
  return () => abort.abort();
}

async function followUntilDone(endpoint: string, id: string, signal: AbortSignal): Promise<void> {
  const isOver = () => signal.aborted;
  let failures = 0;
  while (!isOver()) {
    const done = await readStream(endpoint, id, signal).catch(() => false);
    if (isOver()) return;
    await refresh();
    if (done) return;
    // The connection was lost. A new stream starts with the whole log.
    failures = trouble.value === null ? 0 : failures + 1;
    await new Promise((resolve) => setTimeout(resolve, backedOff(RETRY_PAUSE, failures)));
  }
}

async function readStream(endpoint: string, id: string, signal: AbortSignal): Promise<boolean> {
  let lines: readonly Line[] = [];
  const updates = await (await fal()).queue.streamStatus(endpoint, { requestId: id, logs: true, abortSignal: signal });
  // The loop below throws the same error. Without this line it would also be an unhandled rejection.
  updates.done().catch(() => null);
  for await (const update of updates as AsyncIterable<Update>) {
    lines = [...lines, ...(update.logs ?? [])];
    const position = update.queue_position ?? null;
    if (watched.value && watched.value.state !== update.status) void refresh();
    watched.value = { id, state: update.status, position, progress: update.progress ?? null, lines };
    if (update.status === "COMPLETED") return true;
  }
  return false;
}
