/** What the user does to the items and LoRAs of the draft. Each is a step that can be undone. */

import { batch } from "@preact/signals";
import { type Scene, settleIn } from "./arrange";
import { type Entry, type Item, type LoraEntry, amend, commit, draft, drag, facts, items, rules, selected, undo } from "./draft";
import { layOut } from "./layout";
import { type Settled, fixedFrames, objection, trim } from "./timeline";
import { say } from "./toast";

export const UNDO = { label: "Undo", run: undo };

/** What new and moved items have to respect: everything on the timeline except the item that is dragged. */
export function scene(without?: string): Scene {
  const { entries, scales } = draft.value;
  const kept = entries.filter((entry) => entry.id !== without);
  return { items: layOut(kept, rules.value, scales), rules: rules.value, scales };
}

export function add(entries: readonly Entry[]): void {
  batch(() => {
    commit({ entries: [...draft.value.entries, ...entries] });
    selected.value = entries.at(-1)?.id ?? null;
  });
}

/** `control` names what the user changes in quick succession, such as a slider. */
export function change(id: string, part: Partial<Entry>, control: string | null = null): void {
  const entries = draft.value.entries.map((entry) => (entry.id === id ? { ...entry, ...part } : entry));
  commit({ entries }, control === null ? null : `${control} ${id}`);
}

export function remove(id: string): void {
  const gone = items.value.find((item) => item.id === id);
  if (!gone) return;
  batch(() => {
    commit({ entries: draft.value.entries.filter((entry) => entry.id !== id) });
    if (selected.value === id) selected.value = null;
  });
  say(`${gone.name} is removed.`, UNDO);
}

/** The valid place nearest to the frame `wanted`, and why it is another frame; null if there is none. */
export function placeFor(item: Entry, wanted: number): Settled | null {
  return settleIn(item, wanted, scene(item.id));
}

/** Moves the item to the valid frame nearest to `wanted`. Returns why it is another frame; null if it is not. */
export function move(item: Item, wanted: number): string | null {
  const settled = placeFor(item, wanted);
  if (!settled) return "There is no room for it.";
  if (settled.start !== item.start) change(item.id, wantedAt(settled.start), "move");
  return settled.reason;
}

/** Moves the item to the next valid frame in the direction of `by`. */
export function nudge(item: Item, by: number): void {
  for (let wanted = item.start + by; wanted >= 0 && wanted < rules.value.frames; wanted += Math.sign(by)) {
    const settled = placeFor(item, wanted);
    if (settled && (settled.start - item.start) * by > 0) {
      change(item.id, wantedAt(settled.start), "move");
      return;
    }
  }
}

export function wantedAt(frame: number): Partial<Entry> {
  return { wanted: frame, of: rules.value.frames };
}

/** The limit nearest to `wanted` frames, and why it is lower; null if there is none. */
export function limitFor(item: Item, wanted: number): { limit: number | null; reason: string | null } | null {
  const others = scene(item.id).items;
  const trimmed = trim(item, wanted, others, rules.value);
  if (!trimmed) return null;
  const whole = fixedFrames({ ...item, limit: null }, rules.value);
  const isWhole = trimmed.limit === whole && !objection({ ...item, limit: null }, others, rules.value);
  return { limit: isWhole ? null : trimmed.limit, reason: trimmed.reason };
}

/** Shortens or lengthens the clip. Returns why it is shorter than `wanted`; null if it is not. */
export function resize(item: Item, wanted: number): string | null {
  const found = limitFor(item, wanted);
  if (!found) return "There is no room for it.";
  if (found.limit !== item.limit) change(item.id, { limit: found.limit }, "resize");
  return found.reason;
}

/** Makes what the user has dragged a step. */
export function drop(): void {
  const moved = drag.value;
  batch(() => {
    drag.value = null;
    if (moved) change(moved.id, moved.part);
  });
}

/** Whether the user can shorten the item: a clip of known length, if the endpoint accepts `max_num_frames`. */
export function isTrimmable(item: Pick<Entry, "kind" | "exact">): boolean {
  return item.kind === "video" && item.exact && !!facts.value?.schema.video.max_num_frames;
}

export function addLora(lora: LoraEntry): void {
  commit({ loras: [...draft.value.loras, lora] });
}

export function changeLora(id: string, part: Partial<LoraEntry>, control: string | null = null): void {
  const loras = draft.value.loras.map((lora) => (lora.id === id ? { ...lora, ...part } : lora));
  commit({ loras }, control === null ? null : `${control} ${id}`);
}

/** Sets the file of a repository that the user has not chosen. */
export function presetFile(id: string, weight_name: string | null): void {
  amend({ loras: draft.value.loras.map((lora) => (lora.id === id ? { ...lora, weight_name } : lora)) });
}

export function removeLora(id: string): void {
  const gone = draft.value.loras.find((lora) => lora.id === id);
  commit({ loras: draft.value.loras.filter((lora) => lora.id !== id) });
  say(`${gone?.label ?? (gone?.path || "The LoRA")} is removed.`, UNDO);
}
