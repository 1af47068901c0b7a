/** The draft: the request that the user is composing. The browser stores it, so a reload loses nothing. */

import { batch, computed, effect, signal } from "@preact/signals";
import type { Input } from "../server/requests";
import type { Facts } from "../server/session";
import { type Shape, outputShape } from "./canvas";
import { type Refusal, currentProblems } from "./errors";
import { type Kind, type Placed, type Rules, objection, refit } from "./timeline";

/** A picture or clip on the timeline. `url` is null until the upload ends; `local` is an object URL of the file. */
export interface Item extends Placed {
  readonly limit: number | null;
  readonly url: string | null;
  readonly local: string | null;
  readonly strength: number;
  readonly width: number;
  readonly height: number;
  /** False if `length` is an estimate. */
  readonly exact: boolean;
  readonly uploaded: number;
  readonly failed: string | null;
}

export interface Lora {
  readonly id: string;
  readonly path: string;
  readonly weight_name: string | null;
  readonly scale: number;
  readonly label: string | null;
  readonly uploaded: number;
  readonly failed: string | null;
}

const STORED = "keyreel.draft";
/** Fields that are not in `values`. */
const LISTS = new Set(["images", "videos", "loras"]);

export const values = signal<Readonly<Record<string, unknown>>>({});
export const items = signal<readonly Item[]>([]);
export const loras = signal<readonly Lora[]>([]);
export const selected = signal<string | null>(null);
export const refusal = signal<Refusal | null>(null);
export const facts = signal<Facts | null>(null);

/** The chosen value of a field, or its default in the schema. */
// eslint-disable-next-line @typescript-eslint/no-unnecessary-type-parameters -- the type depends on the schema
export function value<T>(name: string): T {
  return (values.value[name] ?? facts.value?.schema.fields[name]?.default ?? null) as T;
}

export function setValue(name: string, chosen: unknown): void {
  batch(() => {
    const before = rules.value;
    const isDefault = chosen === facts.value?.schema.fields[name]?.default || chosen === null;
    const { [name]: _, ...others } = values.value;
    values.value = isDefault ? others : { ...others, [name]: chosen };
    if (name === "number_of_frames") items.value = refit(items.value, before, rules.value);
  });
}

export const rules = computed<Rules>(() => ({
  frames: Number(value("number_of_frames")) || 1,
  temporal: facts.value?.temporal ?? 1,
}));

/** The condition with the lowest start frame. At the same frame, a picture comes before a clip. */
const firstCondition = computed(() => {
  const order = (item: Item) => item.start * 2 + (item.kind === "video" ? 1 : 0);
  return [...items.value].sort((a, b) => order(a) - order(b))[0] ?? null;
});

export const shape = computed<Shape | null>(() =>
  facts.value ? outputShape(facts.value.sizes, value("resolution"), value("aspect_ratio"), firstCondition.value) : null,
);

/** The input of the request, without fields that have their default value. */
export const input = computed<Input>(() => {
  const listed = {
    images: conditions("image", "image_url"),
    videos: conditions("video", "video_url"),
    loras: loras.value.map(({ path, weight_name, scale }) => ({ path, ...(weight_name ? { weight_name } : {}), scale })),
  };
  const filled = Object.entries(listed).filter(([, list]) => list.length);
  return { prompt: "", ...values.value, ...Object.fromEntries(filled) };
});

function conditions(kind: Kind, source: string): Input[] {
  return ordered(kind).map((item) => ({
    [source]: item.url ?? "",
    start_frame_number: item.start,
    ...(item.limit === null ? {} : { max_num_frames: item.limit }),
    ...(item.strength === 1 ? {} : { strength: item.strength }),
  }));
}

export function ordered(kind: Kind): Item[] {
  return items.value.filter((item) => item.kind === kind);
}

export const problems = computed(() => currentProblems(refusal.value, input.value));

/** The problem with an item: a failed upload, an error from the server, or a place that the rules do not allow. */
export function itemProblem(item: Item): string | null {
  if (item.failed) return item.failed;
  const list = item.kind === "image" ? "images" : "videos";
  const path = `${list}.${ordered(item.kind).findIndex((each) => each.id === item.id)}`;
  const reported = [...problems.value].find(([place]) => place === path || place.startsWith(`${path}.`));
  const others = items.value.filter((each) => each.id !== item.id);
  return reported?.[1] ?? objection(item, others, rules.value);
}

/** Why the request cannot be sent yet; null if it can. */
export const obstacle = computed<string | null>(() => {
  if (!String(value("prompt") ?? "").trim()) return "Write a prompt.";
  const pending = [...items.value, ...loras.value];
  if (pending.some((each) => each.uploaded < 1 && !each.failed)) return "Still uploading.";
  if (pending.some((each) => each.failed)) return "A file could not be uploaded. Replace or remove it.";
  if (loras.value.some((each) => !each.path.trim())) return "Enter the LoRA's link or repository, or remove it.";
  const others = (item: Item) => items.value.filter((each) => each.id !== item.id);
  if (items.value.some((item) => objection(item, others(item), rules.value))) return "Move the marked items on the timeline.";
  return null;
});

/** Whether the user can shorten the item: a clip of known length, if the endpoint accepts `max_num_frames`. */
export function isTrimmable(item: Item): boolean {
  return item.kind === "video" && item.exact && !!facts.value?.schema.video.max_num_frames;
}

export function change(id: string, part: Partial<Item>): void {
  items.value = items.value.map((item) => (item.id === id ? { ...item, ...part } : item));
}

export function remove(id: string): void {
  items.value = items.value.filter((item) => item.id !== id);
  if (selected.value === id) selected.value = null;
}

export function changeLora(id: string, part: Partial<Lora>): void {
  loras.value = loras.value.map((lora) => (lora.id === id ? { ...lora, ...part } : lora));
}

/** Replaces the draft with an earlier request. */
export function editRequest(given: Input, seed: number | null): void {
  batch(() => {
    const plain = Object.entries(given).filter(([name]) => !LISTS.has(name));
    values.value = Object.fromEntries(plain);
    if (seed !== null) setValue("seed", seed);
    items.value = [...readItems(given.images, "image", "image_url"), ...readItems(given.videos, "video", "video_url")];
    loras.value = ((given.loras ?? []) as Partial<Lora>[]).map((lora) => newLora(lora));
    selected.value = null;
  });
}

function readItems(list: unknown, kind: Kind, source: string): Item[] {
  return ((list ?? []) as Record<string, unknown>[]).map((each) =>
    newItem(kind, nameOf(String(each[source])), {
      url: String(each[source]),
      uploaded: 1,
      start: Number(each.start_frame_number ?? 0),
      strength: Number(each.strength ?? 1),
      limit: typeof each.max_num_frames === "number" ? each.max_num_frames : null,
      // The page cannot count the frames of a clip that it knows only by its URL. This is the minimum.
      length: kind === "image" ? 1 : Number(each.max_num_frames ?? (facts.value?.temporal ?? 0) + 1),
      exact: kind === "image",
    }),
  );
}

export function newItem(kind: Kind, name: string, part: Partial<Item> = {}): Item {
  const id = crypto.randomUUID();
  const blank = { url: null, local: null, limit: null, strength: 1, width: 16, height: 9, exact: true, uploaded: 0, failed: null };
  return { id, kind, name, start: 0, length: 1, ...blank, ...part };
}

export function newLora(part: Partial<Lora> = {}): Lora {
  const scale = Number(facts.value?.schema.lora.scale?.default ?? 1);
  const blank = { path: "", weight_name: null, scale, label: null, uploaded: 1, failed: null };
  return { id: crypto.randomUUID(), ...blank, ...part };
}

export function nameOf(url: string): string {
  return decodeURIComponent(url.split(/[?#]/)[0]?.split("/").filter(Boolean).pop() ?? url);
}

/** Restores the stored draft, then stores every change until the returned function is called. */
export function keepDraft(known: Facts): () => void {
  facts.value = known;
  try {
    restore(JSON.parse(localStorage.getItem(STORED) ?? "{}") as Record<string, unknown>);
  } catch {
    localStorage.removeItem(STORED);
  }
  return effect(() => {
    const uploaded = items.value.filter((item) => item.url).map((item) => ({ ...item, local: null }));
    const kept = { values: values.value, items: uploaded, loras: loras.value };
    localStorage.setItem(STORED, JSON.stringify(kept));
  });
}

function restore(kept: Record<string, unknown>): void {
  batch(() => {
    values.value = (kept.values ?? {}) as Record<string, unknown>;
    // An item that an earlier version of the page stored may lack newer properties.
    items.value = ((kept.items ?? []) as Item[]).map((item) => newItem(item.kind, item.name, item));
    loras.value = ((kept.loras ?? []) as Lora[]).filter((lora) => lora.uploaded === 1);
  });
}
