/** The requests of the current key. The server stores them, so all tabs show the same list. */

import { batch, computed, effect, signal } from "@preact/signals";
import { fal } from "./fal";
import { call, getJson } from "./http";
import { keepAsking } from "./polling";
import { closeIfRevoked, session } from "./session";

/** A number if JavaScript holds it exactly, otherwise its digits. The server accepts both. */
export type Seed = number | string;
export type Input = Record<string, unknown>;

export interface Problem {
  readonly loc: readonly (string | number)[];
  readonly msg: string;
}

export interface Progress {
  readonly stage: string;
  readonly step: number;
  readonly steps: number;
  readonly seconds_left: number | null;
  readonly preview?: { readonly url: string; readonly frames: number } | null;
}

export interface Output {
  /** Missing from the outputs of some endpoints. */
  readonly prompt?: string;
  readonly seed: Seed;
  readonly video: { readonly url: string; readonly file_size?: number };
}

export interface Shared {
  readonly output: Output;
  readonly created: number;
}

export interface VideoRequest {
  readonly seq: number;
  readonly id: string;
  readonly endpoint: string;
  readonly key_id: string;
  readonly state: "IN_QUEUE" | "IN_PROGRESS" | "COMPLETED";
  readonly position: number | null;
  readonly progress: Progress | null;
  readonly input: Input;
  readonly seed: Seed;
  readonly worker: string | null;
  readonly created: number;
  readonly started: number | null;
  readonly finished: number | null;
  readonly output?: Output;
  /** The token of the share link. Anyone who has it can watch the video. */
  readonly share?: string;
  readonly error?: string;
  readonly error_type?: string;
  readonly problems?: string | readonly Problem[];
}

export interface Line {
  readonly message: string;
  readonly level: string;
  readonly timestamp: string;
}

const PAGE_SIZE = 60;
const BUSY_PAUSE = 1500;
const IDLE_PAUSE = 8000;

export const requests = signal<readonly VideoRequest[]>([]);
export const loaded = signal(false);
export const mayHaveMore = signal(false);
/** Why the last refresh failed; null if it succeeded. */
export const trouble = signal<string | null>(null);
export const isBusy = computed(() => requests.value.some((each) => each.state !== "COMPLETED"));

/** The next user of this tab must not see the requests of this one. */
effect(() => {
  if (session.value.state !== "closed") return;
  batch(() => {
    requests.value = [];
    loaded.value = false;
    mayHaveMore.value = false;
    trouble.value = null;
  });
});

export async function refresh(): Promise<void> {
  const asked = session.value;
  try {
    const newest = await getJson<VideoRequest[]>(`api/requests?limit=${PAGE_SIZE}`);
    if (session.value !== asked) return; // the answer is for the user before
    batch(() => {
      const oldest = newest.at(-1)?.seq ?? 0;
      const older = newest.length < PAGE_SIZE ? [] : requests.value.filter((each) => each.seq < oldest);
      if (!loaded.value || !older.length) mayHaveMore.value = newest.length === PAGE_SIZE;
      requests.value = [...newest, ...older];
      loaded.value = true;
      trouble.value = null;
    });
  } catch (error) {
    if (!closeIfRevoked(error)) trouble.value = (error as Error).message;
  }
}

export async function loadMore(): Promise<void> {
  const last = requests.value.at(-1);
  if (!last) return;
  const more = await getJson<VideoRequest[]>(`api/requests?limit=${PAGE_SIZE}&before=${last.seq}`);
  requests.value = [...requests.value, ...more];
  mayHaveMore.value = more.length === PAGE_SIZE;
}

/** Polls while the page is visible or a request is running, until the returned function is called. */
export function follow(): () => void {
  const ask = async () => {
    if (!document.hidden || isBusy.value) await refresh();
    return trouble.value === null;
  };
  const poller = keepAsking(ask, () => (isBusy.value ? BUSY_PAUSE : IDLE_PAUSE));
  const stopHurrying = isBusy.subscribe((busy) => busy && poller.now());
  return () => {
    stopHurrying();
    poller.stop();
  };
}

/** Submits the inputs in their order and returns the ids. If one is refused, those before it stay in the queue. */
export async function submit(endpoint: string, inputs: readonly Input[]): Promise<string[]> {
  const ids: string[] = [];
  try {
    for (const input of inputs) ids.push((await (await fal()).queue.submit(endpoint, { input })).request_id);
  } finally {
    if (ids.length) await refresh();
  }
  return ids;
}

export async function cancel(...cancelled: readonly VideoRequest[]): Promise<void> {
  const { queue } = await fal();
  try {
    await Promise.all(cancelled.map(({ endpoint, id }) => queue.cancel(endpoint, { requestId: id })));
  } finally {
    await refresh();
  }
}

/** Puts the user's waiting requests into this order. */
export async function reorder(ids: readonly string[]): Promise<void> {
  await call("PUT", "api/requests/order", { ids });
  await refresh();
}

export async function deleteRequest(id: string): Promise<void> {
  await call("DELETE", `api/requests/${id}`);
  requests.value = requests.value.filter((each) => each.id !== id);
}

export function promptOf({ input, output }: VideoRequest): string {
  return output?.prompt ?? (typeof input.prompt === "string" ? input.prompt : "");
}

/** Finds a request that may be older than the list or, for administrators, belong to another key. */
export async function find(id: string): Promise<VideoRequest> {
  return requests.value.find((each) => each.id === id) ?? getJson<VideoRequest>(`api/requests/${id}`);
}

export async function findShared(token: string): Promise<Shared> {
  return getJson<Shared>(`api/shared/${token}`);
}
