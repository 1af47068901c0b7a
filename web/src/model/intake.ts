/** Adds files and links to the timeline or to the LoRAs, and uploads the files. */

import { upload } from "../server/fal";
import { change, changeLora, isTrimmable, type Item, items, loras, nameOf, newItem, newLora, rules, selected } from "./draft";
import { inspect, kindOf } from "./media";
import { type Kind, freeStart, roomFor, settle } from "./timeline";
import { say } from "./toast";

/** `frame` is where the user dropped the files on the timeline; if it is null, each file goes to a free place. */
export async function addFiles(files: Iterable<File>, frame: number | null = null): Promise<void> {
  for (const file of files) {
    const kind = kindOf(file.type, file.name);
    if (kind) await addMedia(file, file.name, kind, frame);
    else if (file.name.endsWith(".safetensors")) void addLoraFile(file);
    else say(`${file.name} is not a picture, a clip or a LoRA (.safetensors).`);
  }
}

export async function addMedia(file: Blob, name: string, kind: Kind, frame: number | null): Promise<void> {
  const local = URL.createObjectURL(file);
  try {
    const media = await inspect(file, local, kind);
    const item = place(newItem(kind, name, { ...media, local }), frame);
    if (item) await send(item, file);
    else say(noRoom(name));
  } catch {
    say(`${name} cannot be read as a ${kind === "image" ? "picture" : "clip"}.`);
  }
}

/** Adds a picture or clip that needs no upload. */
export function addUrl(url: string, kind: Kind, part: Partial<Item> = {}): void {
  const item = newItem(kind, nameOf(url), { url, uploaded: 1, ...part });
  if (!place(item, null)) say(noRoom(item.name));
}

export async function replaceMedia(item: Item, file: File): Promise<void> {
  const kind = kindOf(file.type, file.name);
  if (kind !== item.kind) {
    say(`Choose a ${item.kind === "image" ? "picture" : "clip"} to replace it.`);
    return;
  }
  const local = URL.createObjectURL(file);
  try {
    const media = await inspect(file, local, kind);
    change(item.id, { ...media, name: file.name, local, url: null, uploaded: 0, failed: null });
    await send(item, file);
  } catch {
    say(`${file.name} cannot be read.`);
  }
}

export async function addLoraFile(file: File): Promise<void> {
  const lora = newLora({ label: file.name, uploaded: 0 });
  loras.value = [...loras.value, lora];
  try {
    const path = await upload(file, (share) => changeLora(lora.id, { uploaded: Math.min(share, 0.99) }));
    changeLora(lora.id, { path, uploaded: 1 });
  } catch {
    changeLora(lora.id, { failed: "The upload failed." });
  }
}

function noRoom(name: string): string {
  return `There is no room for ${name} on the timeline.`;
}

/** Puts the item on the timeline and trims a clip if it has to. Returns null if there is no room. */
function place(item: Item, frame: number | null): Item | null {
  const others = items.value;
  const start = frame === null ? freeStart(item, others, rules.value) : settle(item, frame, others, rules.value)?.start;
  // A clip that is too short goes on the timeline anyway, where it shows its problem.
  const isShort = item.kind === "video" && item.length <= rules.value.temporal;
  const room = start == null && isTrimmable(item) ? roomFor(item, others, rules.value) : null;
  if (start == null && !room && !isShort) return null;
  const there = { ...item, start: start ?? 0, ...room };
  items.value = [...others, there];
  selected.value = there.id;
  return there;
}

async function send(item: Item, file: Blob): Promise<void> {
  try {
    const named = file instanceof File ? file : new File([file], item.name, { type: file.type });
    const url = await upload(named, (share) => change(item.id, { uploaded: Math.min(share, 0.99) }));
    change(item.id, { url, uploaded: 1 });
  } catch {
    change(item.id, { failed: `${item.name} could not be uploaded.` });
  }
}
