/** The draft: the request that the user is composing, with its steps, which can be undone. */

import { batch, computed, effect, signal, untracked } from "@preact/signals";
import type { Input } from "../server/requests";
import type { Facts } from "../server/session";
import { type Shape, outputShape } from "./canvas";
import type { Point } from "./crop";
import { type Refusal, currentProblems } from "./errors";
import { type History, begin, record, redone, undone } from "./history";
import { type Laid, type Wish, layOut } from "./layout";
import { type Kind, type Rules, objection } from "./timeline";
import { sizes } from "./sizes";
import { dropActions } from "./toast";
import { keepUploads, uploads } from "./uploads";

/** A picture or clip as the user wants it. */
export interface Entry extends Wish {
  /** The link; null if the file is one that this tab uploads. */
  readonly url: string | null;
  readonly upload: string | null;
  readonly strength: number;
  /** In pixels; 0 if unknown. */
  readonly width: number;
  readonly height: number;
  /** False if `length` is an estimate. */
  readonly exact: boolean;
  /** How many frames at the start of the clip are left out. They do not count as `length`. */
  readonly skip: number;
  /** The point of the picture that stays in view when it is cropped. */
  readonly focus: Point;
}

interface Sent {
  readonly uploaded: number;
  readonly failed: string | null;
}

/** A picture or clip on the timeline. `local` is an object URL of the file. */
export type Item = Entry & Laid & Sent & { readonly local: string | null };

export interface LoraEntry {
  readonly id: string;
  readonly path: string;
  readonly weight_name: string | null;
  readonly scale: number;
  readonly label: string | null;
  readonly upload: string | null;
}

export type Lora = LoraEntry & Sent;

export interface Draft {
  readonly values: Readonly<Record<string, unknown>>;
  readonly entries: readonly Entry[];
  readonly loras: readonly LoraEntry[];
  /** Whether the items move when the length of the video changes. */
  readonly scales: boolean;
}

/** An item while it is dragged: where it would be if the user dropped it now. */
export interface Drag {
  readonly id: string;
  readonly part: Partial<Entry>;
}

/** The likely shape of a picture or clip of unknown size. */
const USUAL = { width: 16, height: 9 };
export const EMPTY: Draft = { values: {}, entries: [], loras: [], scales: false };

const history = signal<History<Draft>>(begin(EMPTY));
export const facts = signal<Facts | null>(null);
export const selected = signal<string | null>(null);
export const refusal = signal<Refusal | null>(null);
export const drag = signal<Drag | null>(null);

export const draft = computed(() => history.value.present);
export const canUndo = computed(() => history.value.past.length > 0);
export const canRedo = computed(() => history.value.future.length > 0);
export const values = computed(() => draft.value.values);

/** A file is needed as long as a step that can be undone or redone shows it. */
effect(() => {
  const { past, present, future } = history.value;
  const shown = [...past, present, ...future].flatMap(({ entries, loras }) => [...entries, ...loras]);
  untracked(() => keepUploads(new Set(shown.map(({ upload }) => upload ?? ""))));
});

/** Starts a new history. */
export function open(known: Facts, present: Draft): void {
  batch(() => {
    facts.value = known;
    history.value = begin(present);
    selected.value = null;
  });
}

/** Changes the draft. `control` names the control that the user changes; null if the change is a whole step. */
export function commit(part: Partial<Draft>, control: string | null = null): void {
  batch(() => {
    dropActions();
    history.value = record(history.value, { ...draft.value, ...part }, control, performance.now());
  });
}

/** Completes the last step. This is no step of the user. */
export function amend(part: Partial<Draft>): void {
  history.value = { ...history.value, present: { ...draft.value, ...part } };
}

export function undo(): void {
  travel(undone(history.value));
}

export function redo(): void {
  travel(redone(history.value));
}

function travel(to: History<Draft> | null): void {
  if (!to) return;
  batch(() => {
    dropActions();
    drag.value = null;
    history.value = to;
  });
}

/** The chosen value of a field, or its default in the schema. */
// eslint-disable-next-line @typescript-eslint/no-unnecessary-type-parameters -- the type depends on the schema
export function value<T>(name: string): T {
  return (values.value[name] ?? facts.value?.schema.fields[name]?.default ?? null) as T;
}

export function setValue(name: string, chosen: unknown): void {
  if (value(name) === chosen) return;
  const isDefault = chosen === facts.value?.schema.fields[name]?.default || chosen === null;
  const { [name]: _, ...others } = values.value;
  commit({ values: isDefault ? others : { ...others, [name]: chosen } }, name);
}

export const rules = computed<Rules>(() => ({
  frames: Number(value("number_of_frames")) || 1,
  temporal: facts.value?.temporal ?? 1,
}));

/** The items where they are now; while one is dragged, where it would be. */
export const items = computed<readonly Item[]>(() => {
  const { entries, scales } = draft.value;
  const moved = drag.value;
  const wanted = moved ? entries.map((entry) => (entry.id === moved.id ? { ...entry, ...moved.part } : entry)) : entries;
  return layOut(wanted, rules.value, scales).map((entry) => ({ ...entry, ...sizes.value.get(entry.url ?? ""), ...fileOf(entry) }));
});

export const loras = computed<readonly Lora[]>(() =>
  draft.value.loras.map((entry) => {
    const { url, uploaded, failed } = fileOf({ ...entry, url: entry.path });
    return { ...entry, path: url ?? "", uploaded, failed };
  }),
);

function fileOf(entry: { url: string | null; upload: string | null }): Sent & { url: string | null; local: string | null } {
  const found = entry.upload === null ? undefined : uploads.value.get(entry.upload);
  if (!found) return { url: entry.url, local: null, uploaded: 1, failed: null };
  return { url: found.url, local: found.local, uploaded: found.progress, failed: found.failed };
}

/** The condition with the lowest start frame. At the same frame, a picture comes before a clip. */
const firstCondition = computed(() => {
  const order = (item: Item) => item.start * 2 + (item.kind === "video" ? 1 : 0);
  return [...items.value].sort((a, b) => order(a) - order(b))[0] ?? null;
});

export const shape = computed<Shape | null>(() => {
  const first = firstCondition.value;
  const size = first && (first.width ? first : USUAL);
  return facts.value ? outputShape(facts.value.sizes, value("resolution"), value("aspect_ratio"), size) : null;
});

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
  return ordered(kind).map(({ url, start, skip, limit, strength, focus }) => ({
    [source]: url ?? "",
    start_frame_number: start,
    ...(skip ? { skip_frames: skip } : {}),
    ...(limit === null ? {} : { max_num_frames: limit }),
    ...(strength === 1 ? {} : { strength }),
    ...(focus.x === 0.5 ? {} : { focus_x: focus.x }),
    ...(focus.y === 0.5 ? {} : { focus_y: focus.y }),
  }));
}

export function ordered(kind: Kind): Item[] {
  return items.value.filter((item) => item.kind === kind);
}

export const problems = computed(() => currentProblems(refusal.value, input.value));

/** The problem with an item: a failed upload, an error from the server, or a place that the rules do not allow. */
export function itemProblem(item: Item): string | null {
  if (item.failed) return item.failed;
  if (isMissing(item)) return `${item.name} is missing. Drop or choose the file, or remove the item.`;
  const list = item.kind === "image" ? "images" : "videos";
  const path = `${list}.${ordered(item.kind).findIndex((each) => each.id === item.id)}`;
  const reported = [...problems.value].find(([place]) => place === path || place.startsWith(`${path}.`));
  return reported?.[1] ?? objection(item, othersOf(item.id), rules.value);
}

/** Whether the draft knows only the name of the file. */
export function isMissing({ url, upload }: Pick<Entry, "url" | "upload">): boolean {
  return url === null && upload === null;
}

export function othersOf(id: string): Item[] {
  return items.value.filter((each) => each.id !== id);
}

/** Why the request cannot be sent yet; null if it can. */
export const obstacle = computed<string | null>(() => {
  if (!String(value("prompt") ?? "").trim()) return "Write a prompt.";
  const pending = [...items.value, ...loras.value];
  if (pending.some((each) => each.failed)) return "A file could not be uploaded. Upload it again, replace it or remove it.";
  if (items.value.some(isMissing)) return "Add the missing files of the marked items, or remove the items.";
  if (pending.some((each) => each.uploaded < 1)) return "Still uploading.";
  if (loras.value.some((each) => !each.path.trim())) return "Enter the LoRA's link or repository, or remove it.";
  if (items.value.some((item) => objection(item, othersOf(item.id), rules.value))) return "Move the marked items on the timeline.";
  return null;
});
