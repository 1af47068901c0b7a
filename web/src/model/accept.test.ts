import { expect, it } from "vitest";
import { tooManyBytes, unusable } from "./accept";

const LIMITS = { image_bytes: 64e6, video_bytes: 512e6, lora_bytes: 4e9, pixels: 100e6, video_seconds: 600 };
const PICTURE = { kind: "image", width: 100, height: 100, length: 1, exact: true, seconds: 0 } as const;
const CLIP = { ...PICTURE, kind: "video", length: 9, seconds: 1 } as const;

it("accepts what the server accepts", () => {
  expect(tooManyBytes("a.png", 64e6, "image", LIMITS)).toBeNull();
  expect(unusable("a.png", PICTURE, LIMITS, 8)).toBeNull();
  expect(unusable("a.mp4", CLIP, LIMITS, 8)).toBeNull();
});
it.each([
  [tooManyBytes("a.png", 65e6, "image", LIMITS), "a.png has 65 MB; a picture may have 64 MB at most."],
  [unusable("a.png", { ...PICTURE, width: 20_000, height: 20_000 }, LIMITS, 8), "20000 × 20000 pixels; 100 million are allowed"],
  [unusable("a.mp4", { ...CLIP, seconds: 3600 }, LIMITS, 8), "a clip may last 10 min 0 s at most"],
  [unusable("a.mp4", { ...CLIP, length: 8 }, LIMITS, 8), "a.mp4 has 8 frames; a clip needs at least 9."],
])("says %s", (problem, expected) => expect(problem).toContain(expected));
it("does not refuse a clip whose frames are only estimated", () => expect(unusable("a.webm", { ...CLIP, length: 8, exact: false }, LIMITS, 8)).toBeNull());
