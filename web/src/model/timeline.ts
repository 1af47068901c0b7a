/** Where pictures and clips may be. The server has the same rules, in `src/keyreel/video/timeline.py`. */

import { plural } from "./format";

export type Kind = "image" | "video";

/** `length` is the number of frames in the file, 1 for a picture. `limit` is how many to use at most; null means all. */
export interface Placed {
  readonly id: string;
  readonly kind: Kind;
  readonly name: string;
  readonly start: number;
  readonly length: number;
  readonly limit?: number | null;
}

/** `frames` is the length of the video. `temporal` is the number of frames per latent frame of the model, 8. */
export interface Rules {
  readonly frames: number;
  readonly temporal: number;
}

export interface Trimmed {
  readonly limit: number;
  /** Why the clip is shorter than wanted; null if it is not. */
  readonly reason: string | null;
}

export interface Settled {
  readonly start: number;
  /** Why the item does not start where it was wanted; null if it does. */
  readonly reason: string | null;
}

/** How many frames the model generates: the smallest number of the form 8k+1 that covers the video. */
export function generatedFrames({ frames, temporal }: Rules): number {
  return Math.ceil((frames - 1) / temporal) * temporal + 1;
}

/** How many frames of the video the item fixes. For a clip: the largest number of the form 8k+1 that fits, or 0. */
export function fixedFrames(item: Placed, rules: Rules): number {
  if (item.kind === "image") return 1;
  const available = Math.max(0, Math.min(item.length, item.limit ?? Infinity, generatedFrames(rules) - item.start));
  return available ? Math.floor((available - 1) / rules.temporal) * rules.temporal + 1 : 0;
}

/** Why the item may not be at its place; null if it may. */
export function objection(item: Placed, others: readonly Placed[], rules: Rules): string | null {
  return outside(item, rules) ?? badClip(item, rules) ?? overlap(item, others, rules);
}

/** The valid start nearest to `wanted` that `accepts` agrees to; null if there is none. */
export function settle(item: Placed, wanted: number, others: readonly Placed[], rules: Rules, accepts: (start: number) => boolean = () => true): Settled | null {
  const aim = Math.max(0, Math.min(rules.frames - 1, Math.round(wanted)));
  const reason = objection({ ...item, start: aim }, others, rules);
  const isValid = (start: number) => start >= 0 && start < rules.frames && !objection({ ...item, start }, others, rules) && accepts(start);
  if (isValid(aim)) return { start: aim, reason: null };
  for (let distance = 1; distance < rules.frames; distance++) {
    const start = [aim - distance, aim + distance].find(isValid);
    if (start !== undefined) return { start, reason: reason ?? "Other items need the frame." };
  }
  return null;
}

/** The longest valid length of a clip up to `wanted`, which is rounded to 8k+1; null if there is none. */
export function trim(item: Placed, wanted: number, others: readonly Placed[], rules: Rules): Trimmed | null {
  const step = rules.temporal;
  const longest = fixedFrames({ ...item, limit: null }, rules);
  const aim = Math.max(step, Math.round((wanted - 1) / step) * step) + 1;
  for (let limit = Math.min(aim, longest); limit > step; limit -= step) {
    const problem = objection({ ...item, limit }, others, rules);
    if (!problem) return { limit, reason: limit < aim ? tooLong(item, limit, longest, others, rules) : null };
  }
  return null;
}

/** Why the clip can have no more than `limit` frames at its place. `longest` is what it could have without the others. */
export function tooLong(item: Placed, limit: number, longest: number, others: readonly Placed[], rules: Rules): string {
  if (limit < longest) return objection({ ...item, limit: limit + rules.temporal }, others, rules) ?? "";
  return item.start + longest >= generatedFrames(rules) ? "The video ends here." : `The clip has ${item.length} frames.`;
}

/** Assigns each box to a row so that no two boxes overlap. `left` and `right` are in pixels. */
export function rows(boxes: readonly { id: string; left: number; right: number }[]): Map<string, number> {
  const ends: number[] = [];
  const found = new Map<string, number>();
  for (const box of [...boxes].sort((a, b) => a.left - b.left)) {
    const free = ends.findIndex((end) => end <= box.left);
    const row = free < 0 ? ends.length : free;
    ends[row] = box.right;
    found.set(box.id, row);
  }
  return found;
}

/** The frames to label: multiples of 8, 16, 32 and so on, with the labels at least `apart` pixels apart. */
export function ticks({ frames, temporal }: Rules, width: number, apart: number): number[] {
  let step = temporal;
  while ((step * width) / frames < apart) step *= 2;
  return Array.from({ length: Math.ceil(frames / step) }, (_, index) => index * step);
}

function outside(item: Placed, { frames }: Rules): string | null {
  return item.start < frames ? null : `The video's last frame is ${frames - 1}.`;
}

function badClip(item: Placed, rules: Rules): string | null {
  if (item.kind === "image") return null;
  const shortest = rules.temporal + 1;
  if (item.length < shortest) return `${item.name} has ${plural(item.length, "frame")}; a clip needs at least ${shortest}.`;
  if (item.start % rules.temporal) return `Clips start at multiples of ${rules.temporal}.`;
  const fixed = fixedFrames(item, rules);
  return fixed < shortest ? `Only ${plural(fixed, "frame")} of ${item.name} fit here; a clip needs at least ${shortest}.` : null;
}

function overlap(item: Placed, others: readonly Placed[], rules: Rules): string | null {
  const end = item.start + fixedFrames(item, rules);
  for (const other of others) {
    const first = Math.max(item.start, other.start);
    const last = Math.min(end, other.start + fixedFrames(other, rules)) - 1;
    if (first <= last) return `${first === last ? `Frame ${first} is` : `Frames ${first} to ${last} are`} taken by ${other.name}.`;
  }
  return null;
}
