/** Brings back the request of a video that Keyreel made. */

import { type Input, requests } from "../server/requests";
import { facts } from "./draft";
import { editRequest } from "./entries";
import { readRequest } from "./metadata";

const LISTS = ["images", "videos", "loras"];

/** Replaces the draft with the request in the file. Returns false, and changes nothing, if it holds none. */
export async function restoreFrom(file: File): Promise<boolean> {
  const made = await readRequest(file);
  if (!made) return false;
  const { seed, ...input } = made;
  // The file names its inputs without their links. The history has them, if the video is in it.
  const known = requests.value.find((each) => String(each.seed) === String(seed) && isSame(each.input, input));
  editRequest(known?.input ?? input, typeof seed === "number" || typeof seed === "string" ? seed : null);
  return true;
}

function isSame(given: Input, made: Input): boolean {
  const plain = Object.keys({ ...given, ...made }).filter((name) => !LISTS.includes(name) && name !== "seed");
  const withDefault = (input: Input, name: string) => JSON.stringify(input[name] ?? facts.value?.schema.fields[name]?.default ?? null);
  return plain.every((name) => withDefault(given, name) === withDefault(made, name)) && LISTS.every((name) => sizeOf(given[name]) === sizeOf(made[name]));
}

function sizeOf(list: unknown): number {
  return Array.isArray(list) ? list.length : 0;
}
