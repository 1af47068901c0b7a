/** The player and its playhead, which the timeline shares. Frames count from 0. */

import { computed, signal } from "@preact/signals";

/** The video in the player. `rate` is in frames per second. */
export interface Film {
  readonly video: HTMLVideoElement;
  readonly frames: number;
  readonly rate: number;
}

const MAX_SPEED = 4;

export const film = signal<Film | null>(null);
export const playhead = signal(0);
/** How many times as fast as normal the video plays; negative when it plays backwards, 0 when it is paused. */
export const speed = signal(0);
export const isPlaying = computed(() => speed.value !== 0);
let rewinding = 0;

/** Follows a video until the returned function is called. */
export function load(next: Film): () => void {
  const { video } = next;
  const stop = new AbortController();
  const on = (name: string, listener: () => void) => video.addEventListener(name, listener, { signal: stop.signal });
  const follow = () => {
    if (stop.signal.aborted) return;
    playhead.value = frameAt(next, video.currentTime);
    requestAnimationFrame(follow);
  };
  film.value = next;
  for (const name of ["play", "pause", "ratechange"]) on(name, () => noteSpeed(video));
  noteSpeed(video);
  follow();
  return () => {
    stop.abort();
    clearInterval(rewinding);
    rewinding = speed.value = 0;
    if (film.value === next) film.value = null;
  };
}

function frameAt({ frames, rate }: Film, time: number): number {
  return Math.max(0, Math.min(frames - 1, Math.floor(time * rate + 0.01)));
}

/** Shows a frame. The time is in the middle of the frame, because times in files are rounded. */
export function seek(frame: number): void {
  const current = film.value;
  if (!current) return;
  const shown = Math.max(0, Math.min(current.frames - 1, Math.round(frame)));
  current.video.currentTime = (shown + 0.5) / current.rate;
  playhead.value = shown;
}

export function step(by: number): void {
  pause();
  seek(playhead.value + by);
}

export function pause(): void {
  clearInterval(rewinding);
  rewinding = 0;
  speed.value = 0;
  film.value?.video.pause();
}

export function togglePlay(): void {
  if (isPlaying.value) pause();
  else play(1);
}

/** Plays forwards or backwards; each call in the same direction doubles the speed. */
export function shuttle(direction: 1 | -1): void {
  const isSame = speed.value * direction > 0;
  play(direction * (isSame ? Math.min(MAX_SPEED, Math.abs(speed.value) * 2) : 1));
}

function play(next: number): void {
  const current = film.value;
  if (!current) return;
  pause();
  speed.value = next;
  if (next < 0) {
    rewind(current, next);
    return;
  }
  current.video.playbackRate = next;
  void current.video.play().catch(() => noteSpeed(current.video));
}

/** Browsers tell of a start or a stop late, when the video may already do the opposite or go backwards. */
function noteSpeed(video: HTMLVideoElement): void {
  if (!rewinding) speed.value = video.paused ? 0 : video.playbackRate;
}

/** Browsers cannot play backwards, so this seeks. */
function rewind({ frames, rate }: Film, by: number): void {
  rewinding = window.setInterval(() => seek((playhead.value + Math.sign(by) + frames) % frames), 1000 / (rate * Math.abs(by)));
}
