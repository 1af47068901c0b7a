/** Adds files and links to the timeline or to the LoRAs. */

import { tooManyBytes, unusable } from "./accept";
import { placeAt, placeFree, settleIn, spread } from "./arrange";
import { type Entry, type Item, facts, isMissing, items, rules } from "./draft";
import { UNDO, add, addLora, change, scene } from "./edits";
import { nameOf, newEntry, newLora } from "./entries";
import { plural } from "./format";
import { inspect, kindOf } from "./media";
import { type Kind, fixedFrames } from "./timeline";
import { say } from "./toast";
import { startUpload } from "./uploads";

interface Examined {
  readonly file: File;
  readonly local: string;
  readonly entry: Entry;
}

/**
 * Adds all files at once, in their order, and uploads them side by side. `frame` is where the user dropped them on the
 * timeline; if it is null, they go to free places. Files that cannot be used are named and do not stop the others.
 */
export async function addFiles(files: Iterable<File>, frame: number | null = null): Promise<void> {
  const all = [...files];
  all.filter(isLora).forEach(addLoraFile);
  const examined = await Promise.all(all.filter((file) => !isLora(file)).map((file) => examine(file)));
  addExamined(examined.filter((each) => each !== null && !fillMissing(each)).filter((each) => each !== null), frame);
}

/** Gives the file to an item that waits for one of its name. Returns whether there is one. */
function fillMissing({ file, local, entry }: Examined): boolean {
  const place = items.value.find((item) => isMissing(item) && item.name === entry.name && item.kind === entry.kind);
  if (place) change(place.id, { ...mediaOf(entry), skip: place.skip, upload: startUpload(file, local) });
  return !!place;
}

function mediaOf({ name, width, height, length, exact }: Entry): Partial<Entry> {
  return { name, width, height, length, exact, url: null };
}

/** Adds a picture or clip that needs no upload. */
export function addUrl(url: string, kind: Kind, part: Partial<Entry> = {}): void {
  const entry = newEntry(kind, nameOf(url), { url, ...part });
  const placed = placeFree(entry, scene());
  if (placed) {
    add([placed]);
    report([placed]);
  } else say(noRoom(entry.name));
}

export async function replaceMedia(item: Item, file: File): Promise<void> {
  const examined = await examine(file);
  if (!examined) return;
  const { entry, local } = examined;
  if (entry.kind !== item.kind) {
    URL.revokeObjectURL(local);
    say(`Choose a ${item.kind === "image" ? "picture" : "clip"} to replace it.`);
    return;
  }
  change(item.id, { ...mediaOf(entry), skip: 0, upload: startUpload(file, local) });
}

export function addLoraFile(file: File): void {
  if (!isLora(file)) {
    say(`${file.name} is not a LoRA (.safetensors).`);
    return;
  }
  const problem = facts.value && tooManyBytes(file.name, file.size, "lora", facts.value.limits);
  if (problem) say(problem);
  else addLora(newLora({ label: file.name, upload: startUpload(file) }));
}

function isLora(file: File): boolean {
  return file.name.toLowerCase().endsWith(".safetensors");
}

/** Reads a picture or clip. If it cannot be used, says why and returns null. */
async function examine(file: File): Promise<Examined | null> {
  const { name } = file;
  const kind = kindOf(file.type, name);
  if (!kind) return refuse(`${name} is not a picture, a clip or a LoRA (.safetensors).`);
  const limits = facts.value?.limits;
  const tooLarge = limits && tooManyBytes(name, file.size, kind, limits);
  if (tooLarge) return refuse(tooLarge);
  const local = URL.createObjectURL(file);
  const media = await inspect(file, local, kind).catch(() => null);
  const problem = media ? limits && unusable(name, media, limits, rules.value.temporal) : `${name} cannot be read as a ${kind === "image" ? "picture" : "clip"}.`;
  if (!media || problem) {
    URL.revokeObjectURL(local);
    return refuse(problem ?? "");
  }
  const { width, height, exact } = media;
  // An estimate may be too low: the server counts.
  const length = media.kind === "video" ? Math.max(media.length, rules.value.temporal + 1) : 1;
  return { file, local, entry: newEntry(media.kind, name, { width, height, length, exact }) };
}

function refuse(problem: string): null {
  say(problem);
  return null;
}

function addExamined(examined: readonly Examined[], frame: number | null): void {
  const [first] = examined;
  const reason = first && examined.length === 1 && frame !== null ? settleIn(first.entry, frame, scene())?.reason : null;
  const placed = place(examined.map(({ entry }) => entry), frame);
  const ids = new Set(placed.map(({ id }) => id));
  examined.filter(({ entry }) => !ids.has(entry.id)).forEach(({ local }) => URL.revokeObjectURL(local));
  if (!placed.length) return;
  const uploading = placed.map((entry) => {
    const found = examined.find((each) => each.entry.id === entry.id);
    return found ? { ...entry, upload: startUpload(found.file, found.local) } : entry;
  });
  add(uploading);
  report(uploading, reason ?? null);
}

/** The entries with their places. Names those for which there is no room. */
function place(entries: readonly Entry[], frame: number | null): Entry[] {
  const together = entries.length > 1 ? spread(entries, frame, scene()) : null;
  if (together) return together;
  const placed: Entry[] = [];
  for (const entry of entries) {
    const now = sceneWith(placed);
    const found = (frame === null ? null : placeAt(entry, frame, now)) ?? placeFree(entry, now);
    if (found) placed.push(found);
    else say(noRoom(entry.name));
  }
  return placed;
}

function sceneWith(placed: readonly Entry[]): ReturnType<typeof scene> {
  const now = scene();
  return { ...now, items: [...now.items, ...placed.map((entry) => ({ ...entry, start: entry.wanted, notice: null }))] };
}

function noRoom(name: string): string {
  return `There is no room for ${name} on the timeline.`;
}

/** Says where several items are, why one is not where it was dropped, and which clips are shortened. */
function report(placed: readonly Entry[], reason: string | null = null): void {
  const shown = items.value.filter((item) => placed.some((entry) => entry.id === item.id));
  const frames = shown.map((item) => item.start);
  const where = shown.length > 1 ? [`${plural(shown.length, "item")} in order, at frames ${listed(frames)}.`] : [];
  const moved = reason ? [`${placed[0]?.name ?? ""} is at frame ${frames[0] ?? 0}. ${reason}`] : [];
  const cut = shown.filter(isCut).map((item) => `${item.name} uses its first ${fixedFrames(item, rules.value)} of ${item.length} frames.`);
  const text = [...where, ...moved, ...cut].join(" ");
  if (text) say(text, UNDO);
}

function isCut(item: Item): boolean {
  return item.kind === "video" && item.length - fixedFrames(item, rules.value) >= rules.value.temporal;
}

function listed(frames: readonly number[]): string {
  return `${frames.slice(0, -1).join(", ")} and ${frames.at(-1) ?? 0}`;
}
