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

/** The valid start nearest to `wanted`; null if there is none. */
export function settle(item: Placed, wanted: number, others: readonly Placed[], rules: Rules): Settled | null {
  const aim = Math.max(0, Math.min(rules.frames - 1, Math.round(wanted)));
  const reason = objection({ ...item, start: aim }, others, rules);
  if (!reason) return { start: aim, reason: null };
  for (let distance = 1; distance < rules.frames; distance++) {
    for (const start of [aim - distance, aim + distance]) {
      const isValid = start >= 0 && start < rules.frames && !objection({ ...item, start }, others, rules);
      if (isValid) return { start, reason };
    }
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

/** The start and the greatest possible length for a clip that must be trimmed to fit; null if it fits nowhere. */
export function roomFor(item: Placed, others: readonly Placed[], rules: Rules): { start: number; limit: number } | null {
  const step = rules.temporal;
  for (let limit = fixedFrames({ ...item, start: 0 }, rules); limit > step; limit -= step) {
    for (let start = 0; start + limit <= generatedFrames(rules); start += step) {
      if (!objection({ ...item, start, limit }, others, rules)) return { start, limit };
    }
  }
  return null;
}

function tooLong(item: Placed, limit: number, longest: number, others: readonly Placed[], rules: Rules): string {
  if (limit < longest) return objection({ ...item, limit: limit + rules.temporal }, others, rules) ?? "";
  return item.start + longest >= generatedFrames(rules) ? "The video ends here." : `The clip has ${item.length} frames.`;
}

/**
 * The start for a new item that the user has not placed. A picture goes to the first frame, else to the last, else to
 * the middle of the widest gap. A clip goes to the first frame, else into the widest gap. Null if there is no room.
 */
export function freeStart(item: Placed, others: readonly Placed[], rules: Rules): number | null {
  const last = rules.frames - 1;
  for (const start of item.kind === "image" ? [0, last] : [0]) {
    if (!objection({ ...item, start }, others, rules)) return start;
  }
  const [from, to] = widestGap(others, rules);
  const wanted = item.kind === "image" ? (from + to) / 2 : from;
  return settle(item, wanted, others, rules)?.start ?? null;
}

/** Adapts the items to a new video length. A picture on the last frame stays on the last frame; others stay inside. */
export function refit<T extends Placed>(items: readonly T[], before: Rules, after: Rules): T[] {
  const done: T[] = [];
  for (const item of items) {
    const isLast = item.kind === "image" && item.start === before.frames - 1;
    const wanted = isLast ? after.frames - 1 : item.start;
    const start = settle(item, wanted, done, after)?.start ?? item.start;
    done.push({ ...item, start });
  }
  return done;
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
  if (item.length < shortest) return `The clip has ${item.length} frames; at least ${shortest} are needed.`;
  if (item.start % rules.temporal) return `Clips start at multiples of ${rules.temporal}.`;
  const fixed = fixedFrames(item, rules);
  return fixed < shortest ? `There is room for only ${plural(fixed, "frame")} of the clip here; at least ${shortest} are needed.` : null;
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

function widestGap(others: readonly Placed[], rules: Rules): [number, number] {
  let widest: [number, number] = [0, 0];
  let from = 0;
  const spans = others.map((item) => [item.start, item.start + fixedFrames(item, rules)] as const);
  for (const [start, end] of [...spans.sort((a, b) => a[0] - b[0]), [rules.frames, rules.frames] as const]) {
    if (start - 1 - from > widest[1] - widest[0]) widest = [from, start - 1];
    from = Math.max(from, end);
  }
  return widest;
}
