/** The key's requests, as the server keeps them: they survive a reload, and other tabs see them too. */

import { batch, computed, signal } from "@preact/signals";
import type { Problem } from "../model/errors";
import type { Input } from "../model/snippets";
import { fal } from "./fal";
import { call, getJson } from "./http";

export interface Progress {
  readonly stage: string;
  readonly step: number;
  readonly steps: number;
  readonly seconds_left: number | null;
  readonly preview?: { readonly url: string; readonly frames: number } | null;
}

export interface Output {
  readonly prompt: string;
  readonly seed: number;
  readonly video: { readonly url: string; readonly file_size?: number };
}

export interface Shared {
  readonly output: Output;
  readonly created: number;
}

export interface Made {
  readonly seq: number;
  readonly id: string;
  readonly key_id: string;
  readonly state: "IN_QUEUE" | "IN_PROGRESS" | "COMPLETED";
  readonly position: number | null;
  readonly progress: Progress | null;
  readonly input: Input;
  readonly seed: number;
  readonly worker: string | null;
  readonly created: number;
  readonly started: number | null;
  readonly finished: number | null;
  readonly output?: Output;
  /** Opens the video to whoever has it. */
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

export const made = signal<readonly Made[]>([]);
export const loaded = signal(false);
export const mayHaveMore = signal(false);
/** What hinders the page from seeing the server; null when nothing does. */
export const trouble = signal<string | null>(null);
export const isBusy = computed(() => made.value.some((each) => each.state !== "COMPLETED"));

export async function refresh(): Promise<void> {
  try {
    const newest = await getJson<Made[]>(`api/requests?limit=${PAGE_SIZE}`);
    batch(() => {
      const oldest = newest.at(-1)?.seq ?? 0;
      const older = newest.length < PAGE_SIZE ? [] : made.value.filter((each) => each.seq < oldest);
      if (!loaded.value || !older.length) mayHaveMore.value = newest.length === PAGE_SIZE;
      made.value = [...newest, ...older];
      loaded.value = true;
      trouble.value = null;
    });
  } catch (error) {
    trouble.value = (error as Error).message;
  }
}

export async function loadMore(): Promise<void> {
  const last = made.value.at(-1);
  if (!last) return;
  const more = await getJson<Made[]>(`api/requests?limit=${PAGE_SIZE}&before=${last.seq}`);
  made.value = [...made.value, ...more];
  mayHaveMore.value = more.length === PAGE_SIZE;
}

/** Keeps the list fresh while the page can be seen: often when something runs. Returns how to stop. */
export function follow(): () => void {
  let timer = 0;
  let stopped = false;
  const turn = async () => {
    clearTimeout(timer);
    if (!document.hidden) await refresh();
    if (!stopped) timer = window.setTimeout(() => void turn(), isBusy.value ? BUSY_PAUSE : IDLE_PAUSE);
  };
  const onShow = () => void turn();
  document.addEventListener("visibilitychange", onShow);
  void turn();
  return () => {
    stopped = true;
    clearTimeout(timer);
    document.removeEventListener("visibilitychange", onShow);
  };
}

/** The id of the new request. */
export async function submit(endpoint: string, input: Input): Promise<string> {
  const { request_id } = await fal.queue.submit(endpoint, { input });
  await refresh();
  return request_id;
}

export async function cancel(endpoint: string, id: string): Promise<void> {
  await fal.queue.cancel(endpoint, { requestId: id });
  await refresh();
}

export async function forget(id: string): Promise<void> {
  await call("DELETE", `api/requests/${id}`);
  made.value = made.value.filter((each) => each.id !== id);
}

export function promptOf({ input, output }: Made): string {
  return output?.prompt ?? (typeof input.prompt === "string" ? input.prompt : "");
}

/** A request by its link: it may be older than the list, or another key's. */
export async function find(id: string): Promise<Made> {
  return made.value.find((each) => each.id === id) ?? getJson<Made>(`api/requests/${id}`);
}

export async function findShared(token: string): Promise<Shared> {
  return getJson<Shared>(`api/shared/${token}`);
}
