import type { ComponentChildren } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { film, isPlaying, load, playhead, speed, step, togglePlay } from "../model/player";
import { isStill } from "../model/motion";
import { Button } from "./controls";

interface Props {
  readonly url: string;
  readonly label: string;
  readonly frames: number;
  readonly rate: number;
  /** Width by height. */
  readonly ratio: number;
  readonly onSize: (width: number, height: number) => void;
  readonly children: ComponentChildren;
}

/** A finished video with the playhead that the timeline shares. `children` are more buttons for its frames. */
export function Player({ url, label, frames, rate, ratio, onSize, children }: Props) {
  const video = useRef<HTMLVideoElement>(null);
  useEffect(() => (video.current ? load({ video: video.current, frames, rate }) : undefined), [url, frames, rate]);
  return (
    <>
      <div class="screen" style={{ "--ratio": ratio }}>
        <video
          ref={video}
          src={url}
          autoPlay={!isStill()}
          loop
          muted
          playsInline
          controls
          aria-label={label}
          crossOrigin="anonymous"
          onLoadedMetadata={({ currentTarget: { videoWidth, videoHeight } }) => onSize(videoWidth, videoHeight)}
        />
      </div>
      <div class="transport" role="group" aria-label="Frames">
        <Button icon="back" label="Back one frame (,)" onClick={() => step(-1)} />
        <Button icon={isPlaying.value ? "pause" : "play"} label={isPlaying.value ? "Pause (Space)" : "Play (Space)"} onClick={togglePlay} />
        <Button icon="forward" label="Forward one frame (.)" onClick={() => step(1)} />
        <output class="note" aria-label="Frame">
          Frame {playhead.value} of {frames - 1}
          {film.value && Math.abs(speed.value) > 1 ? `, ${Math.abs(speed.value)} ×` : ""}
          {speed.value < 0 ? ", backwards" : ""}
        </output>
        {children}
      </div>
    </>
  );
}
