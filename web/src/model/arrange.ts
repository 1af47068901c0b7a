/** Finds frames for new items. */

import { type Laid, type Wish, agree, layOut } from "./layout";
import { type Placed, type Rules, fixedFrames, generatedFrames, objection, settle } from "./timeline";

type Item = Wish & Laid;

/** Free frames between two items: `from` is the first of them, `to` the one after the last. */
interface Gap {
  readonly from: number;
  readonly to: number;
  readonly isFirst: boolean;
  readonly isLast: boolean;
}

/** The video, what lies on its timeline, and whether wanted frames are stretched with its length. */
export interface Scene {
  readonly items: readonly Item[];
  readonly rules: Rules;
  readonly scales: boolean;
}

/** The valid start nearest to `frame` that moves no other item; null if there is none. */
export function settleIn(wish: Wish, frame: number, { items, rules, scales }: Scene): ReturnType<typeof settle> {
  const others = items.filter((item) => item.id !== wish.id);
  return settle({ ...wish, start: 0 }, frame, others, rules, (start) => agree(others, wish, start, rules, scales));
}

/**
 * The wish for a new item that the user has not placed. A picture goes to the first frame, else to the last, else to
 * the middle of the widest gap. A clip goes to the first frame, else into the widest gap, shortened if it has to be.
 * Null if there is no room.
 */
export function placeFree<T extends Wish>(wish: T, scene: Scene): T | null {
  const { items, rules } = scene;
  const ends = wish.kind === "image" ? [0, rules.frames - 1] : [0];
  const end = ends.find((start) => !objection({ ...wish, start }, items, rules));
  const gap = widest(gaps(scene));
  const middle = gap && (wish.kind === "image" ? (gap.from + gap.to - 1) / 2 : gap.from);
  const frame = end ?? middle;
  return (frame === undefined ? null : placeAt(wish, frame, scene)) ?? (wish.kind === "video" ? roomFor(wish, scene) : null);
}

/** The wish for an item at the valid frame nearest to `frame`; null if there is none. */
export function placeAt<T extends Wish>(wish: T, frame: number, scene: Scene): T | null {
  const settled = settleIn(wish, frame, scene);
  return settled && { ...wish, wanted: settled.start, of: scene.rules.frames };
}

/**
 * Spreads several new items evenly, in their order: from `frame` to the next item or the end of the video, or over the
 * widest gap if `frame` is null. Returns null if they do not fit there.
 */
export function spread<T extends Wish>(wishes: readonly T[], frame: number | null, scene: Scene): T[] | null {
  const free = gaps(scene);
  const gap = frame === null ? undefined : free.find((each) => frame < each.to);
  const tried = gap ? [startingAt(gap, frame ?? 0, totalOf(wishes)), gap, widest(free)] : [widest(free)];
  for (const each of tried) {
    const found = each && fill(wishes, each, scene);
    if (found) return found;
  }
  return null;
}

/** The start and the greatest possible length for a clip that must be shortened to fit; null if it fits nowhere. */
export function roomFor<T extends Wish>(wish: T, { items, rules }: Scene): T | null {
  const step = rules.temporal;
  for (let limit = fixedFrames({ ...wish, start: 0 }, rules); limit > step; limit -= step) {
    for (let start = 0; start + limit <= generatedFrames(rules); start += step) {
      if (!objection({ ...wish, start, limit }, items, rules)) return { ...wish, wanted: start, of: rules.frames, limit };
    }
  }
  return null;
}

/** The part of the gap from `frame` on; more of it if `total` frames would not fit. */
function startingAt(gap: Gap, frame: number, total: number): Gap {
  return { ...gap, from: Math.max(gap.from, Math.min(frame, gap.to - total)), isFirst: true };
}

function totalOf(wishes: readonly Wish[]): number {
  return wishes.reduce((sum, { length, limit }) => sum + Math.min(length, limit ?? length), 0);
}

/** Places the wishes in the gap; null if that is impossible without moving other items. */
function fill<T extends Wish>(wishes: readonly T[], gap: Gap, { items, rules, scales }: Scene): T[] | null {
  const wanted = evenly(wishes.map(({ length, limit }) => Math.min(length, limit ?? length)), gap);
  const asked = wishes.map((wish, index) => ({ ...wish, wanted: wanted[index] ?? gap.from, of: rules.frames }));
  const laid = layOut<Wish>([...items, ...asked], rules, scales);
  const others = (item: Placed) => laid.filter((each) => each.id !== item.id);
  const isValid = laid.every((item, index) => {
    const before = items[index];
    return before ? item.start === before.start && item.limit === before.limit : !objection(item, others(item), rules);
  });
  return isValid ? asked.map((wish, index) => ({ ...wish, wanted: laid[items.length + index]?.start ?? wish.wanted })) : null;
}

/** The starts of items of these lengths with equal space between them, and at an end of the gap that is an item. */
function evenly(lengths: readonly number[], { from, to, isFirst, isLast }: Gap): number[] {
  const total = lengths.reduce((sum, length) => sum + length, 0);
  const sizes = total <= to - from ? lengths : lengths.map(() => 1);
  const free = Math.max(0, to - from - sizes.reduce((sum, size) => sum + size, 0));
  const spaces = sizes.length - 1 + (isFirst ? 0 : 1) + (isLast ? 0 : 1);
  const space = spaces ? free / spaces : 0;
  let next = from + (isFirst ? 0 : space);
  return sizes.map((size) => {
    const start = Math.round(next);
    next += size + space;
    return start;
  });
}

function gaps({ items, rules }: Scene): Gap[] {
  const found: Gap[] = [];
  let from = 0;
  const spans = items.map((item) => [item.start, item.start + fixedFrames(item, rules)] as const).sort((a, b) => a[0] - b[0]);
  for (const [start, end] of [...spans, [rules.frames, rules.frames] as const]) {
    if (start > from) found.push({ from, to: start, isFirst: from === 0, isLast: start === rules.frames });
    from = Math.max(from, end);
  }
  return found;
}

function widest(found: readonly Gap[]): Gap | undefined {
  return found.reduce<Gap | undefined>((best, gap) => (best && best.to - best.from >= gap.to - gap.from ? best : gap), undefined);
}
