/** The user's requests that wait or run, in the order in which they go. */

import { computed } from "@preact/signals";
import { ownWorkers } from "./abilities";
import { type Progress, type VideoRequest, requests } from "../server/requests";

/** The finished videos from which the time of the next one is estimated. */
const SAMPLE = 5;

/** Those that run come first, and last those whose place is not known yet. */
export const live = computed(() => requests.value.filter((each) => each.state !== "COMPLETED").sort((a, b) => place(a) - place(b) || a.seq - b.seq));
export const waiting = computed(() => live.value.filter((each) => each.state === "IN_QUEUE"));
export const running = computed(() => live.value.find((each) => each.state === "IN_PROGRESS") ?? null);

function place({ state, position }: VideoRequest): number {
  return state === "IN_PROGRESS" ? -1 : (position ?? Number.MAX_SAFE_INTEGER);
}

/** Per cent of the current stage; null if it is not known. */
export function percent(progress: Progress | null): number | null {
  return progress?.steps ? Math.round((100 * progress.step) / progress.steps) : null;
}

export function progressText(progress: Progress | null): string {
  const done = percent(progress);
  return done === null ? "Starting" : `${done} %`;
}

/** Seconds until a waiting request begins, judged by how long the last videos took; null if that is not known or it begins at once. */
export function expectedWait(position: number | null): number | null {
  if (position === null) return null;
  const usual = usualSeconds(requests.value);
  const devices = ownWorkers.value.filter((worker) => worker.ready).length;
  if (usual === null || !devices) return null;
  const begun = live.value.filter((each) => each.state === "IN_PROGRESS");
  const left = begun.reduce((sum, { progress }) => sum + (progress?.seconds_left ?? usual / 2), 0);
  return (left + position * usual) / devices || null;
}

function usualSeconds(all: readonly VideoRequest[]): number | null {
  const took = all.flatMap(({ output, started, finished }) => (output && started !== null && finished !== null ? [finished - started] : [])).slice(0, SAMPLE);
  return took.length ? took.reduce((sum, each) => sum + each, 0) / took.length : null;
}

/** The ids of the waiting requests after one of them has moved by `by` places. */
export function moved(id: string, by: number): string[] {
  const ids = waiting.value.map((each) => each.id);
  const at = ids.indexOf(id);
  ids.splice(at, 1);
  ids.splice(Math.max(0, at + by), 0, id);
  return ids;
}
