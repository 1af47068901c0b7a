/**
 * Where items are, computed from where the user wants them. The wish stays as it is when the video becomes too short
 * for it, so the item returns when the video is long enough again.
 */

import { type Kind, type Placed, type Rules, fixedFrames, generatedFrames, objection, tooLong } from "./timeline";

/** What the user wants: an item that starts at the frame `wanted` of a video of `of` frames. */
export interface Wish {
  readonly id: string;
  readonly kind: Kind;
  readonly name: string;
  readonly wanted: number;
  readonly of: number;
  /** The number of frames in the file, 1 for a picture. */
  readonly length: number;
  /** How many of them to use at most; null means all. */
  readonly limit: number | null;
}

export interface Laid {
  readonly start: number;
  readonly limit: number | null;
  /** Why the item is not where it was wanted, or has fewer frames than wanted; null if neither is so. */
  readonly notice: string | null;
}

interface Row<T> {
  readonly wish: T;
  readonly aim: number;
  readonly order: number;
}

/**
 * Places every wish so that all keep their order. Each is as near to its wanted frame as the others allow; a clip gives
 * up frames at its end before its neighbours move. Wishes that are valid together are placed exactly.
 *
 * @param scales whether wanted frames are stretched with the length of the video
 */
export function layOut<T extends Wish>(wishes: readonly T[], rules: Rules, scales: boolean): (T & Laid)[] {
  const rows = wishes.map((wish) => rowOf(wish, rules, scales)).sort((a, b) => a.order - b.order);
  const starts = startsOf(rows, rules);
  const placed = rows.map(({ wish }, index) => shorten(at(wish, starts[index] ?? 0), starts[index + 1], rules));
  const laid = rows.map(({ wish, aim }, index) => withNotice(wish, aim, placed, index, rules));
  return wishes.map((wish) => laid[rows.findIndex((row) => row.wish === wish)] as T & Laid);
}

/** The frame that the wish aims at in this video. A picture that was wanted on the last frame stays on the last frame. */
export function aimOf(wish: Wish, rules: Rules, scales: boolean): number {
  if (isLast(wish)) return rules.frames - 1;
  const frame = scales && wish.of > 1 ? Math.round((wish.wanted * (rules.frames - 1)) / (wish.of - 1)) : wish.wanted;
  return wish.kind === "image" ? frame : Math.round(frame / rules.temporal) * rules.temporal;
}

/** Whether the wishes leave each other where they are: nobody has moved or been shortened to make room. */
export function agree(before: readonly (Wish & Laid)[], added: Wish, start: number, rules: Rules, scales: boolean): boolean {
  const after = layOut([...before, { ...added, wanted: start, of: rules.frames }], rules, scales);
  return after.at(-1)?.start === start && before.every((item, index) => isSame(item, after[index]));
}

function isSame(item: Laid, other: Laid | undefined): boolean {
  return item.start === other?.start && item.limit === other.limit;
}

function isLast({ kind, wanted, of }: Wish): boolean {
  return kind === "image" && wanted === of - 1;
}

function rowOf<T extends Wish>(wish: T, rules: Rules, scales: boolean): Row<T> {
  const aim = aimOf(wish, rules, scales);
  return { wish, aim, order: isLast(wish) ? Number.MAX_SAFE_INTEGER : aim };
}

function startsOf(rows: readonly Row<Wish>[], rules: Rules): number[] {
  const latest = latestStarts(rows, rules);
  let free = 0;
  return rows.map(({ wish, aim }, index) => {
    const first = wish.kind === "image" ? free : Math.ceil(free / rules.temporal) * rules.temporal;
    const last = latest[index] ?? 0;
    // If there are too many items, some must overlap; each then says so.
    const start = first <= last ? Math.min(Math.max(aim, first), last) : Math.max(0, last);
    free = start + shortest(wish, rules);
    return start;
  });
}

/** The last start of each item that leaves room for those after it. */
function latestStarts(rows: readonly Row<Wish>[], rules: Rules): number[] {
  let end = generatedFrames(rules);
  return rows.reduceRight<number[]>((found, { wish }) => {
    const last = Math.min(rules.frames - 1, end - shortest(wish, rules));
    end = wish.kind === "image" ? last : Math.floor(last / rules.temporal) * rules.temporal;
    return [end, ...found];
  }, []);
}

function shortest({ kind }: Wish, { temporal }: Rules): number {
  return kind === "image" ? 1 : temporal + 1;
}

function at(wish: Wish, start: number): Placed {
  const { id, kind, name, length, limit } = wish;
  return { id, kind, name, length, limit, start };
}

/** Shortens a clip that would reach into the next item. */
function shorten(item: Placed, next: number | undefined, rules: Rules): Placed {
  const room = (next ?? Infinity) - item.start;
  if (item.kind === "image" || fixedFrames(item, rules) <= room || room <= rules.temporal) return item;
  return { ...item, limit: Math.floor((room - 1) / rules.temporal) * rules.temporal + 1 };
}

function withNotice<T extends Wish>(wish: T, aim: number, placed: readonly Placed[], index: number, rules: Rules): T & Laid {
  const item = placed[index] as Placed;
  const others = placed.filter((each) => each !== item);
  const notice = item.start === aim ? cutNotice(wish, item, others, rules) : movedNotice(wish, aim, others, rules);
  return { ...wish, start: item.start, limit: item.limit ?? null, notice };
}

function movedNotice(wish: Wish, aim: number, others: readonly Placed[], rules: Rules): string {
  const reason = objection(at(wish, aim), others, rules) ?? "Other items need the room.";
  return `Moved from frame ${aim}. ${reason}`;
}

function cutNotice(wish: Wish, item: Placed, others: readonly Placed[], rules: Rules): string | null {
  if (item.kind === "image") return null;
  const whole = Math.min(wish.length, wish.limit ?? Infinity);
  const used = fixedFrames(item, rules);
  if (whole - used < rules.temporal) return null;
  const longest = fixedFrames({ ...item, limit: null }, rules);
  return `Shortened from ${whole} to ${used} frames. ${tooLong(item, used, longest, others, rules)}`;
}
