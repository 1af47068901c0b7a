import { describe, expect, it } from "vitest";
import { type Scene, placeAt, placeFree, settleIn, spread } from "./arrange";
import { type Wish, layOut } from "./layout";
import type { Kind } from "./timeline";

const RULES = { frames: 89, temporal: 8 };

function wish(kind: Kind, name: string, wanted = 0, length = 1): Wish {
  return { id: name, kind, name, wanted, of: 89, length, limit: null };
}

function scene(...wishes: Wish[]): Scene {
  return { items: layOut(wishes, RULES, false), rules: RULES, scales: false };
}

const pictures = (count: number) => Array.from({ length: count }, (_, index) => wish("image", `p${index}`));
const wanted = (found: readonly Wish[] | null) => found?.map((each) => each.wanted);

describe("spread", () => {
  it.each([
    [5, null, [], [0, 22, 44, 66, 88]],
    [3, 40, [], [40, 64, 88]],
    [2, 10, [wish("image", "next", 50)], [10, 30]],
    [2, 87, [], [87, 88]],
    [3, 88, [], [86, 87, 88]],
    [2, 10, [wish("video", "clip", 0, 25)], [25, 88]],
    [2, null, [wish("image", "first", 0), wish("image", "last", 88)], [29, 59]],
  ])("puts %i pictures from frame %s on among %o at %o", (count, frame, others, expected) => {
    expect(wanted(spread(pictures(count), frame, scene(...others)))).toEqual(expected);
  });
  it("leaves room for clips", () => {
    const files = [wish("image", "a"), wish("video", "b", 0, 25), wish("image", "c")];
    expect(wanted(spread(files, null, scene()))).toEqual([0, 32, 88]);
  });
  it("returns null where there is no room", () => expect(spread(pictures(3), null, scene(wish("video", "all", 0, 89)))).toBeNull());
});

describe("placeFree", () => {
  it("takes the first frame, the last, then the middle", () => {
    const placed: Wish[] = [];
    for (const [index, expected] of [0, 88, 44, 22].entries()) {
      const found = placeFree(wish("image", `n${index}`), scene(...placed));
      expect(found?.wanted).toBe(expected);
      if (found) placed.push(found);
    }
  });
  it("puts a clip into the widest gap, and shortens it if it has to", () => {
    const ends = [wish("image", "first", 0), wish("image", "last", 88)];
    expect(placeFree(wish("video", "clip", 0, 17), scene(...ends))).toMatchObject({ wanted: 8, limit: null });
    expect(placeFree(wish("video", "clip", 0, 89), scene(...ends, wish("image", "x", 30)))).toMatchObject({ wanted: 32, limit: 49 });
  });
  it("returns null if every gap is too short", () => {
    const taken = [0, 8, 16, 24, 32, 40, 48, 56, 64, 72, 80, 88].map((frame) => wish("image", `p${frame}`, frame));
    expect(placeFree(wish("video", "clip", 0, 17), scene(...taken))).toBeNull();
  });
});

describe("settleIn", () => {
  it("does not count the item itself", () => expect(settleIn(wish("image", "a"), 10, scene(wish("image", "a", 10)))?.start).toBe(10));
  it("chooses a frame that the item keeps, although others are not where they are wanted", () => {
    const short = { ...RULES, frames: 41 };
    const displaced = [wish("video", "clip", 64, 25), wish("image", "late", 80)];
    const crowded = { items: layOut(displaced, short, false), rules: short, scales: false };
    const placed = placeAt(wish("image", "new"), 36, crowded);
    const after = placed && layOut([...displaced, placed], short, false);
    expect(after?.at(-1)?.start).toBe(placed?.wanted);
    expect(after?.slice(0, 2).map((item) => item.start)).toEqual(crowded.items.map((item) => item.start));
  });
});
