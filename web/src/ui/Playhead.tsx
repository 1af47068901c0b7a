import { useRef } from "preact/hooks";
import { rules } from "../model/draft";
import { film, pause, playhead, seek, step } from "../model/player";

const KEYS: Record<string, () => void> = {
  ArrowLeft: () => step(-1),
  ArrowDown: () => step(-1),
  ArrowRight: () => step(1),
  ArrowUp: () => step(1),
  Home: () => step(-playhead.value),
  End: () => step(Infinity),
};

/** The frame that the player shows, on the timeline. */
export function Playhead({ cell }: { cell: number }) {
  const scrub = useScrub(cell);
  const last = (film.value?.frames ?? 1) - 1;
  if (playhead.value >= rules.value.frames) return null;
  const onKey = (event: KeyboardEvent) => {
    const action = KEYS[event.key];
    if (!action) return;
    event.preventDefault();
    action();
  };
  return (
    <div class="playhead" style={{ left: `${(playhead.value + 0.5) * cell}px` }}>
      <span
        class="playhead-grip"
        role="slider"
        tabIndex={0}
        aria-label="Playhead"
        aria-valuemin={0}
        aria-valuemax={last}
        aria-valuenow={playhead.value}
        aria-valuetext={`frame ${playhead.value}`}
        onKeyDown={onKey}
        {...scrub}
      >
        {playhead.value}
      </span>
    </div>
  );
}

/** Moves the playhead to the frame under the pointer while it is pressed. */
export function useScrub(cell: number) {
  const isDown = useRef(false);
  const to = (event: PointerEvent) => {
    const track = (event.currentTarget as HTMLElement).closest(".track");
    if (track && film.value) seek(Math.floor((event.clientX - track.getBoundingClientRect().left) / cell));
  };
  return {
    onPointerDown: (event: PointerEvent) => {
      if (event.button !== 0 || !film.value) return;
      (event.currentTarget as HTMLElement).setPointerCapture(event.pointerId);
      isDown.current = true;
      pause();
      to(event);
    },
    onPointerMove: (event: PointerEvent) => isDown.current && to(event),
    onPointerUp: () => (isDown.current = false),
    onPointerCancel: () => (isDown.current = false),
  };
}
