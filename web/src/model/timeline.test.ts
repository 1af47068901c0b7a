import { describe, expect, it } from "vitest";
import {
  type Kind,
  type Placed,
  generatedFrames,
  fixedFrames,
  objection,
  rows,
  settle,
  trim,
  ticks,
} from "./timeline";

const RULES = { frames: 89, temporal: 8 };

function item(kind: Kind, start: number, length = 1, id = `${kind}${start}`): Placed {
  return { id, kind, name: id, start, length };
}

describe("generatedFrames", () => {
  it.each([
    [9, 9],
    [89, 89],
    [90, 97],
    [97, 97],
    [161, 161],
  ])("for %i frames the model generates %i", (frames, generated) => {
    expect(generatedFrames({ frames, temporal: 8 })).toBe(generated);
  });
});

describe("fixedFrames", () => {
  it("is one for a picture", () => expect(fixedFrames(item("image", 40), RULES)).toBe(1));
  it.each([
    [0, 25, 25],
    [0, 30, 25],
    [0, 400, 89],
    [72, 30, 17],
    [80, 30, 9],
    [88, 30, 1],
    [96, 30, 0],
    [0, 8, 1],
  ])("of a clip at %i with %i frames is %i", (start, length, fixed) => {
    expect(fixedFrames(item("video", start, length), RULES)).toBe(fixed);
  });
  it("counts generated frames that are cut off", () => {
    expect(fixedFrames(item("video", 80, 30), { frames: 90, temporal: 8 })).toBe(17);
  });
});

describe("objection", () => {
  it("allows pictures at any frame", () => {
    for (let start = 0; start < 89; start++) expect(objection(item("image", start), [], RULES)).toBeNull();
  });
  it.each([
    [item("image", 89), "last frame is 88"],
    [item("video", 4, 30), "multiples of 8"],
    [item("video", 0, 8), "video0 has 8 frames; a clip needs at least 9"],
    [item("video", 88, 30), "Only 1 frame of video88 fit here"],
  ])("rejects %o", (wrong, reason) => expect(objection(wrong, [], RULES)).toContain(reason));
  it("names the item in the way", () => {
    const clip = item("video", 0, 25);
    expect(objection(item("image", 24), [clip], RULES)).toBe("Frame 24 is taken by video0.");
    expect(objection(item("image", 25), [clip], RULES)).toBeNull();
    expect(objection(item("video", 16, 25), [clip], RULES)).toBe("Frames 16 to 24 are taken by video0.");
  });
});

describe("settle", () => {
  it("keeps a valid start", () => expect(settle(item("image", 0), 13, [], RULES)).toEqual({ start: 13, reason: null }));
  it("snaps a clip and says why", () => {
    expect(settle(item("video", 0, 17), 21, [], RULES)).toEqual({ start: 24, reason: "Clips start at multiples of 8." });
  });
  it("avoids other items", () => {
    expect(settle(item("image", 0), 10, [item("video", 0, 25)], RULES)?.start).toBe(25);
    expect(settle(item("image", 0), 88, [item("image", 88)], RULES)?.start).toBe(87);
  });
  it("stays within the video", () => {
    expect(settle(item("image", 0), -5, [], RULES)?.start).toBe(0);
    expect(settle(item("image", 0), 500, [], RULES)?.start).toBe(88);
    expect(settle(item("video", 0, 30), 500, [], RULES)?.start).toBe(80);
  });
  it("returns null if no frame is free", () => {
    expect(settle(item("image", 0), 5, [item("video", 0, 400)], RULES)).toBeNull();
  });
});

describe("rows and ticks", () => {
  it("puts overlapping boxes into different rows", () => {
    const found = rows([
      { id: "b", left: 40, right: 90 },
      { id: "a", left: 0, right: 50 },
      { id: "c", left: 50, right: 99 },
    ]);
    expect([...found]).toEqual([
      ["a", 0],
      ["b", 1],
      ["c", 0],
    ]);
  });
  it("labels fewer frames where there is less room", () => {
    expect(ticks(RULES, 800, 40)).toEqual([0, 8, 16, 24, 32, 40, 48, 56, 64, 72, 80, 88]);
    expect(ticks(RULES, 300, 40)).toEqual([0, 16, 32, 48, 64, 80]);
  });
});

describe("trim", () => {
  it.each([
    [item("video", 0, 60), 30, [], 33, null],
    [item("video", 0, 60), 2, [], 9, null],
    [item("video", 0, 60), 80, [], 57, "The clip has 60 frames."],
    [item("video", 64, 60), 60, [], 25, "The video ends here."],
    [item("video", 0, 60), 57, [item("image", 40)], 33, "Frame 40 is taken by image40."],
  ])("%o to %i frames", (clip, wanted, others, limit, reason) => {
    expect(trim(clip, wanted, others, RULES)).toEqual({ limit, reason });
  });
  it("returns null if no length fits", () => {
    expect(trim(item("video", 0, 60), 20, [item("image", 4)], RULES)).toBeNull();
  });
  it("keeps its limit when the clip moves", () => {
    const short = { ...item("video", 0, 60), limit: 17 };
    expect(fixedFrames(short, RULES)).toBe(17);
    expect(settle(short, 72, [], RULES)).toEqual({ start: 72, reason: null });
  });
});
