/** Reads pictures and clips in the browser. */

import type { Size } from "./canvas";
import { clipFacts } from "./clips";
import { countPictures } from "./gif";
import type { Kind } from "./timeline";

export interface Media extends Size {
  readonly kind: Kind;
  readonly length: number;
  readonly exact: boolean;
  /** 0 for a picture, and if unknown. */
  readonly seconds: number;
}

export function kindOf(type: string, name: string): Kind | null {
  if (type.startsWith("image/") || /\.(png|jpe?g|webp|gif|bmp|avif|tiff?)$/i.test(name)) return "image";
  if (type.startsWith("video/") || /\.(mp4|mov|webm|mkv|m4v|avi)$/i.test(name)) return "video";
  return null;
}

/** An animated GIF counts as a clip. Throws if the browser cannot decode the file. */
export async function inspect(file: Blob, url: string, kind: Kind): Promise<Media> {
  if (kind === "image") {
    const picture = new Image();
    picture.src = url;
    await picture.decode();
    const size = { width: picture.naturalWidth, height: picture.naturalHeight };
    const length = file.type === "image/gif" ? countPictures(new Uint8Array(await file.arrayBuffer())) : 1;
    return { kind: length > 1 ? "video" : "image", ...size, length: Math.max(1, length), exact: true, seconds: 0 };
  }
  const video = await loadVideo(url);
  const { frames, exact } = await clipFacts(file, video.duration);
  return { kind, width: video.videoWidth, height: video.videoHeight, length: frames, exact, seconds: video.duration };
}

function loadVideo(url: string): Promise<HTMLVideoElement> {
  return new Promise((resolve, reject) => {
    const video = document.createElement("video");
    video.muted = true;
    video.onloadedmetadata = () => resolve(video);
    video.onerror = () => reject(new Error("This browser cannot read the clip."));
    video.src = url;
  });
}

/** The frame of a video at a time in seconds, as a PNG. */
export async function grab(video: HTMLVideoElement, time: number): Promise<Blob> {
  if (Math.abs(video.currentTime - time) > 0.001) {
    await new Promise((resolve) => {
      video.addEventListener("seeked", resolve, { once: true });
      video.currentTime = time;
    });
  }
  const canvas = new OffscreenCanvas(video.videoWidth, video.videoHeight);
  const context = canvas.getContext("2d");
  if (!context) throw new Error("This browser cannot copy a frame.");
  context.drawImage(video, 0, 0);
  return canvas.convertToBlob({ type: "image/png" });
}
