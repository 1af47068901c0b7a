/** Says before the upload what the server would refuse after it. */

import type { FileLimits } from "../server/session";
import { bytes, plural, seconds } from "./format";
import type { Media } from "./media";
import type { Kind } from "./timeline";

/** Why a file is too large; null if it is not. */
export function tooManyBytes(name: string, size: number, kind: Kind | "lora", limits: FileLimits): string | null {
  const limit = { image: limits.image_bytes, video: limits.video_bytes, lora: limits.lora_bytes }[kind];
  const what = { image: "a picture", video: "a clip", lora: "a LoRA" }[kind];
  return size > limit ? `${name} has ${bytes(size)}; ${what} may have ${bytes(limit)} at most.` : null;
}

/** Why a picture or clip cannot be used; null if it can. `temporal` is the number of frames per latent frame. */
export function unusable(name: string, media: Media, limits: FileLimits, temporal: number): string | null {
  const { width, height, kind, length, exact } = media;
  if (width * height > limits.pixels) {
    return `${name} has ${width} × ${height} pixels; ${megapixels(limits.pixels)} are allowed. Scale it down.`;
  }
  if (media.seconds > limits.video_seconds) {
    return `${name} lasts ${seconds(media.seconds)}; a clip may last ${seconds(limits.video_seconds)} at most. Shorten it.`;
  }
  if (kind === "video" && exact && length <= temporal) {
    return `${name} has ${plural(length, "frame")}; a clip needs at least ${temporal + 1}. Use a longer one, or one of its frames as a picture.`;
  }
  return null;
}

function megapixels(pixels: number): string {
  return pixels < 1e6 ? `${pixels}` : `${(pixels / 1e6).toFixed(pixels % 1e6 ? 1 : 0)} million`;
}
