/** Makes the draft's entries: new ones and those of an earlier request. */

import type { Input, Seed } from "../server/requests";
import { CENTRE } from "./crop";
import { type Entry, type LoraEntry, commit, facts, isMissing, items, selected } from "./draft";
import { UNDO } from "./edits";
import { newId } from "./ids";
import type { Kind } from "./timeline";
import { say } from "./toast";

/** Fields that are not in `values`. */
const LISTS = new Set(["images", "videos", "loras"]);

export function newEntry(kind: Kind, name: string, part: Partial<Entry> = {}): Entry {
  const blank = { url: null, upload: null, limit: null, strength: 1, width: 0, height: 0, exact: true, skip: 0, focus: CENTRE };
  return { id: newId(), kind, name, wanted: 0, of: 0, length: 1, ...blank, ...part };
}

export function newLora(part: Partial<LoraEntry> = {}): LoraEntry {
  const scale = Number(facts.value?.schema.lora.scale?.default ?? 1);
  return { id: newId(), path: "", weight_name: null, scale, label: null, upload: null, ...part };
}

/** A short name for the path of a LoRA, if the path itself tells users little; else null. */
export function labelOf(path: string): string | null {
  if (path.startsWith("keyreel:")) return path.slice("keyreel:".length);
  return /\/files\/[\w-]+\/[^/]+$/.test(path) ? nameOf(path) : null;
}

export function nameOf(url: string): string {
  return decodeURIComponent(url.split(/[?#]/)[0]?.split("/").filter(Boolean).pop() ?? url);
}

/** Replaces the draft with an earlier request. */
export function editRequest(given: Input, seed: Seed | null): void {
  const plain = Object.entries(given).filter(([name]) => !LISTS.has(name));
  const frames = Number(given.number_of_frames ?? facts.value?.schema.fields.number_of_frames?.default);
  commit({
    values: { ...Object.fromEntries(plain), ...(seed === null ? {} : { seed }) },
    entries: [...readEntries(given.images, "image", "image_url", frames), ...readEntries(given.videos, "video", "video_url", frames)],
    loras: ((given.loras ?? []) as Partial<LoraEntry>[]).map((lora) => newLora({ ...lora, label: labelOf(lora.path ?? "") })),
  });
  selected.value = null;
  const missing = items.value.filter(isMissing).map((item) => item.name);
  say(`The draft now has the settings of this video.${missing.length ? ` Add these files again: ${missing.join(", ")}.` : ""}`, UNDO);
}

function readEntries(list: unknown, kind: Kind, source: string, frames: number): Entry[] {
  return ((list ?? []) as Record<string, unknown>[]).map((each) =>
    newEntry(kind, nameOf(String(each[source])), {
      // The metadata of a video names an uploaded file without its link.
      url: String(each[source]).includes("/") ? String(each[source]) : null,
      wanted: Number(each.start_frame_number ?? 0),
      of: frames,
      strength: Number(each.strength ?? 1),
      skip: Number(each.skip_frames ?? 0),
      focus: { x: Number(each.focus_x ?? 0.5), y: Number(each.focus_y ?? 0.5) },
      limit: typeof each.max_num_frames === "number" ? each.max_num_frames : null,
      // The page cannot count the frames of a clip that it knows only by its URL. This is the minimum.
      length: kind === "image" ? 1 : Number(each.max_num_frames ?? (facts.value?.temporal ?? 0) + 1),
      exact: kind === "image",
    }),
  );
}
