/** Dragging an item or its edge: the page shows where it would be, and changes the draft when the user lets go. */

import { useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { type Item, drag, selected } from "../model/draft";
import { drop, limitFor, placeFor, wantedAt } from "../model/edits";

/** Where the user has dragged something to, in frames, and why it would be elsewhere; null if it would not. */
interface Aim {
  readonly frames: number;
  readonly reason: string | null;
}

/** Pixels that the pointer may move in a click. */
const CLICK = 3;

/** Drags `value` frames. `show` shows the nearest valid value and returns why it is not the wanted one. */
export function useDrag(cell: number, value: number, show: (wanted: number) => string | null, id: string) {
  const origin = useRef<{ x: number; value: number } | null>(null);
  const aim = useSignal<Aim | null>(null);
  const end = (isDone: boolean) => {
    if (origin.current && isDone) drop();
    else if (origin.current) drag.value = null;
    origin.current = aim.value = null;
  };
  const isActive = aim.value !== null;
  useEffect(() => {
    if (!isActive) return;
    const cancel = (event: KeyboardEvent) => event.key === "Escape" && end(false);
    addEventListener("keydown", cancel);
    return () => removeEventListener("keydown", cancel);
  }, [isActive]);
  const handlers = {
    onPointerDown: (event: PointerEvent) => {
      if (event.button !== 0) return;
      event.stopPropagation();
      (event.currentTarget as HTMLElement).setPointerCapture(event.pointerId);
      origin.current = { x: event.clientX, value };
      selected.value = id;
    },
    onPointerMove: (event: PointerEvent) => {
      if (!origin.current) return;
      const moved = event.clientX - origin.current.x;
      if (!aim.value && Math.abs(moved) <= CLICK) return;
      const frames = origin.current.value + moved / cell;
      aim.value = { frames, reason: show(frames) };
    },
    onPointerUp: () => end(true),
    onPointerCancel: () => end(false),
  };
  return { handlers, aim: aim.value };
}

/** Shows the item at the valid frame nearest to `wanted`. Returns why it is another frame; null if it is not. */
export function showMove(item: Item, wanted: number): string | null {
  const settled = placeFor(item, wanted);
  if (!settled) return "There is no room for it.";
  drag.value = { id: item.id, part: wantedAt(settled.start) };
  return settled.reason;
}

/** Shows the clip with the valid length nearest to `wanted`. Returns why it is shorter; null if it is not. */
export function showResize(item: Item, wanted: number): string | null {
  const found = limitFor(item, wanted);
  if (!found) return "There is no room for it.";
  drag.value = { id: item.id, part: { limit: found.limit } };
  return found.reason;
}
