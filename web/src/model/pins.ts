/** Takes frames of a finished video over to the timeline. */

import { type VideoRequest, promptOf } from "../server/requests";
import { commit, draft, facts, rules, selected, value } from "./draft";
import { UNDO } from "./edits";
import { newEntry } from "./entries";
import { addFiles, addUrl } from "./intake";
import { grab } from "./media";
import { type Film, pause, playhead } from "./player";
import { say } from "./toast";

/** Latent frames of the model at the end of a video that the next one starts with: enough to carry on its motion. */
const OVERLAP = 3;

/** What two videos share that can be joined. */
const SHAPE = new Set(["resolution", "aspect_ratio", "frame_rate"]);

export function frameCount({ input }: VideoRequest): number {
  return Number(input.number_of_frames ?? facts.value?.schema.fields.number_of_frames?.default ?? rules.value.frames);
}

export function frameRate({ input }: VideoRequest): number {
  return Number(input.frame_rate ?? facts.value?.schema.fields.frame_rate?.default ?? 1);
}

/** Adds the current frame to the timeline as a picture. */
export async function pinFrame(film: Film): Promise<void> {
  pause();
  await pin(film, playhead.value);
}

export async function pinLastFrame(film: Film): Promise<void> {
  pause();
  await pin(film, film.frames - 1);
}

async function pin(film: Film, frame: number): Promise<void> {
  const picture = await grab(film.video, (frame + 0.5) / film.rate);
  await addFiles([new File([picture], `frame-${frame}.png`, { type: "image/png" })]);
}

export function pinClip(request: VideoRequest, url: string): void {
  addUrl(url, "video", { name: `clip-${request.seed}.mp4`, length: frameCount(request) });
}

/**
 * Starts a video that goes on where this one ends: the timeline gets its last frames at frame 0, and nothing else. Its
 * size and frame rate are those of this video.
 */
export function extend(request: VideoRequest, url: string): void {
  const length = Math.min(frameCount(request), OVERLAP * rules.value.temporal + 1);
  const skip = frameCount(request) - length;
  const entry = newEntry("video", `end-${request.seed}.mp4`, { url, length, skip, wanted: 0, of: rules.value.frames });
  const prompt = String(value("prompt") ?? "").trim() || promptOf(request);
  const kept = Object.entries(draft.value.values).filter(([name]) => !SHAPE.has(name));
  const taken = Object.entries(request.input).filter(([name]) => SHAPE.has(name));
  const values = { ...Object.fromEntries([...kept, ...taken]), prompt };
  commit({ entries: [entry], values });
  selected.value = entry.id;
  say(`The timeline starts with the last ${length} frames of this video.`, UNDO);
}
