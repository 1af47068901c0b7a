import { describe, expect, it } from "vitest";
import { type Wish, layOut } from "./layout";
import type { Kind } from "./timeline";

const RULES = { frames: 89, temporal: 8 };

function wish(kind: Kind, wanted: number, length = 1, of = 89): Wish {
  return { id: `${kind}${wanted}`, kind, name: `${kind}${wanted}`, wanted, of, length, limit: null };
}

function starts(wishes: readonly Wish[], frames: number, scales = false): number[] {
  return layOut(wishes, { ...RULES, frames }, scales).map((item) => item.start);
}

describe("layOut", () => {
  const five = [0, 22, 44, 66, 88].map((frame) => wish("image", frame));
  it("leaves valid wishes where they are", () => {
    const wishes = [wish("image", 88), wish("video", 0, 25), wish("image", 25)];
    expect(layOut(wishes, RULES, false).map(({ start, notice }) => [start, notice])).toEqual([
      [88, null],
      [0, null],
      [25, null],
    ]);
  });
  it("keeps the order when the video is too short", () => expect(starts(five, 25)).toEqual([0, 21, 22, 23, 24]));
  it("returns everything when the video grows again", () => {
    for (const frames of [25, 161, 89]) starts(five, frames);
    expect(starts(five, 161)).toEqual([0, 22, 44, 66, 160]);
    expect(starts(five, 89)).toEqual([0, 22, 44, 66, 88]);
  });
  it("scales with the length", () => {
    expect(starts(five, 161, true)).toEqual([0, 40, 80, 120, 160]);
    expect(starts(five, 25, true)).toEqual([0, 6, 12, 18, 24]);
    expect(starts([wish("video", 40, 9)], 161, true)).toEqual([72]);
    expect(starts([wish("image", 0), wish("image", 1), wish("image", 2)], 9, true)).toEqual([0, 1, 2]);
  });
  it("says why an item has moved", () => {
    const [, moved] = layOut([wish("image", 0), wish("image", 60)], { ...RULES, frames: 25 }, false);
    expect(moved?.notice).toBe("Moved from frame 60. The video's last frame is 24.");
  });
  it("shortens a clip before it moves what comes after it, and says so", () => {
    const [clip, picture] = layOut([wish("video", 0, 57), wish("image", 60)], { ...RULES, frames: 41 }, false);
    expect([clip?.start, clip?.limit, picture?.start]).toEqual([0, 33, 40]);
    expect(clip?.notice).toBe("Shortened from 57 to 33 frames. Frame 40 is taken by image60.");
  });
  it("says that a clip reaches past the end", () => {
    const [clip] = layOut([wish("video", 0, 57)], { ...RULES, frames: 41 }, false);
    expect([clip?.limit, clip?.notice]).toEqual([null, "Shortened from 57 to 41 frames. The video ends here."]);
  });
});
