/** Reads the request in the metadata of a video that Keyreel made. */

import { parseJson } from "../server/http";
import type { Input } from "../server/requests";
import { type Box, boxes, view } from "./clips";

/** Bytes between the start of an item of the list and its text: the header of its `data` box, type and language. */
const ITEM_HEAD = 16;
/** Bytes of a `meta` box before its first inner box. */
const META_HEAD = 4;

/** The request with its seed; null if Keyreel did not make the file. */
export async function readRequest(file: Blob): Promise<Input | null> {
  const text = await readComment(file).catch(() => null);
  if (!text?.startsWith("{")) return null;
  const facts = parseJson(text) as { generator?: unknown; request?: Input };
  return typeof facts.generator === "string" && facts.generator.startsWith("Keyreel") ? (facts.request ?? null) : null;
}

async function readComment(file: Blob): Promise<string | null> {
  const movie = await inner(file, { type: "", start: 0, end: file.size }, "moov");
  const user = movie && (await inner(file, movie, "udta"));
  const meta = user && (await inner(file, user, "meta"));
  const list = meta && (await inner(file, { ...meta, start: meta.start + META_HEAD }, "ilst"));
  if (!list) return null;
  for await (const item of boxes(file, list.start, list.end)) {
    const text = await file.slice(item.start + ITEM_HEAD, item.end).text();
    if (text.startsWith("{")) return text;
  }
  return null;
}

async function inner(file: Blob, box: Box, type: string): Promise<Box | null> {
  for await (const found of boxes(file, box.start, box.end)) if (found.type === type) return found;
  return null;
}

/** Whether the file may be an MP4: its first box says so. */
export async function isMp4(file: Blob): Promise<boolean> {
  return file.size > 8 && (await view(file, 4, 4)).getUint32(0) === 0x66747970;
}
