/** Where pictures and clips may lie: the rules of `src/keyreel/timeline.py`, kept while something is being dragged. */

export type Kind = "image" | "video";

/** `length`: frames in the file; a picture has one. `limit`: no more of a clip's frames than these; null: all. */
export interface Placed {
  readonly id: string;
  readonly kind: Kind;
  readonly name: string;
  readonly start: number;
  readonly length: number;
  readonly limit?: number | null;
}

/** `frames`: of the video. `temporal`: frames to a latent frame of the model, 8. */
export interface Rules {
  readonly frames: number;
  readonly temporal: number;
}

export interface Stretched {
  readonly limit: number;
  /** Why it is not as long as was wanted. */
  readonly reason: string | null;
}

export interface Settled {
  readonly start: number;
  /** Why it does not lie where it was wanted. */
  readonly reason: string | null;
}

/** The smallest number 8k+1 that holds the video. */
export function drawnFrames({ frames, temporal }: Rules): number {
  return Math.ceil((frames - 1) / temporal) * temporal + 1;
}

/** How many frames it fixes: of a clip the largest number 8k+1 that fits, 0 when none does. */
export function fixedFrames(item: Placed, rules: Rules): number {
  if (item.kind === "image") return 1;
  const available = Math.max(0, Math.min(item.length, item.limit ?? Infinity, drawnFrames(rules) - item.start));
  return available ? Math.floor((available - 1) / rules.temporal) * rules.temporal + 1 : 0;
}

/** Why it may not lie where it lies; null when it may. */
export function objection(item: Placed, others: readonly Placed[], rules: Rules): string | null {
  return outside(item, rules) ?? badClip(item, rules) ?? overlap(item, others, rules);
}

/** The legal start nearest to `wanted`; null when there is none. */
export function settle(item: Placed, wanted: number, others: readonly Placed[], rules: Rules): Settled | null {
  const aim = Math.max(0, Math.min(rules.frames - 1, Math.round(wanted)));
  const reason = objection({ ...item, start: aim }, others, rules);
  if (!reason) return { start: aim, reason: null };
  for (let distance = 1; distance < rules.frames; distance++) {
    for (const start of [aim - distance, aim + distance]) {
      const legal = start >= 0 && start < rules.frames && !objection({ ...item, start }, others, rules);
      if (legal) return { start, reason };
    }
  }
  return null;
}

/** The legal length nearest to `wanted`, for a clip; null when there is none where it lies. */
export function stretch(item: Placed, wanted: number, others: readonly Placed[], rules: Rules): Stretched | null {
  const step = rules.temporal;
  const longest = fixedFrames({ ...item, limit: null }, rules);
  const aim = Math.max(step, Math.round((wanted - 1) / step) * step) + 1;
  for (let limit = Math.min(aim, longest); limit > step; limit -= step) {
    const hindrance = objection({ ...item, limit }, others, rules);
    if (!hindrance) return { limit, reason: limit < aim ? tooLong(item, limit, longest, others, rules) : null };
  }
  return null;
}

/** Where a clip goes that has to be cut shorter, and how short; null when it has to go. */
export function roomFor(item: Placed, others: readonly Placed[], rules: Rules): { start: number; limit: number } | null {
  const step = rules.temporal;
  for (let limit = fixedFrames({ ...item, start: 0 }, rules); limit > step; limit -= step) {
    for (let start = 0; start + limit <= drawnFrames(rules); start += step) {
      if (!objection({ ...item, start, limit }, others, rules)) return { start, limit };
    }
  }
  return null;
}

function tooLong(item: Placed, limit: number, longest: number, others: readonly Placed[], rules: Rules): string {
  if (limit < longest) return objection({ ...item, limit: limit + rules.temporal }, others, rules) ?? "";
  return item.start + longest >= drawnFrames(rules) ? "The video ends here." : `The clip has ${item.length} frames.`;
}

/** Where a new one goes that nobody has placed: the first frame, the last, then the middle of the widest gap. */
export function freeStart(item: Placed, others: readonly Placed[], rules: Rules): number | null {
  const last = rules.frames - 1;
  for (const start of item.kind === "image" ? [0, last] : [0]) {
    if (!objection({ ...item, start }, others, rules)) return start;
  }
  const [from, to] = widestGap(others, rules);
  const wanted = item.kind === "image" ? (from + to) / 2 : from;
  return settle(item, wanted, others, rules)?.start ?? null;
}

/** What lies on the last frame stays there when the video gets longer or shorter; what falls off is taken back in. */
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

/** Rows for boxes that would cover each other, in one pass from the left. Pixels. */
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

/** Frames that get a label: multiples of 8, 16, 32, ... so far apart that labels do not touch. */
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
  return fixed < shortest ? `Only ${fixed} frames of the clip fit from here; at least ${shortest} must.` : null;
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
