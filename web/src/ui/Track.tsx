import { signal, useSignal } from "@preact/signals";
import { useEffect, useMemo, useRef } from "preact/hooks";
import { type Item, items, rules } from "../model/draft";
import { film } from "../model/player";
import { fixedFrames, rows, ticks } from "../model/timeline";
import { Playhead, useScrub } from "./Playhead";
import { TrackItem } from "./TrackItem";

const CARD = 76;
const ROW = 66;
const RULER = 26;
const LABELS_APART = 34;
const GAP = 4;

/** The frame at which files would be dropped; null if the pointer drags none over the track. */
export const dropFrame = signal<number | null>(null);

/** The frame under the pointer; null if the pointer is not over the track. */
export function frameUnder(event: MouseEvent): number | null {
  const track = (event.target as Element | null)?.closest<HTMLElement>(".track");
  if (!track) return null;
  const box = track.getBoundingClientRect();
  return Math.floor(((event.clientX - box.left) / box.width) * rules.value.frames);
}

export function Track({ placeholder }: { placeholder: string }) {
  const element = useRef<HTMLDivElement>(null);
  const width = useSignal(800);
  useEffect(() => {
    if (!element.current) return;
    const observer = new ResizeObserver(([entry]) => (width.value = entry?.contentRect.width ?? 800));
    observer.observe(element.current);
    return () => observer.disconnect();
  }, [width]);
  const cell = width.value / rules.value.frames;
  const boxes = useMemo(() => items.value.map((item) => boxOf(item, cell, width.value)), [items.value, cell, width.value]);
  const rowOf = rows(boxes);
  const count = Math.max(1, ...[...rowOf.values()].map((row) => row + 1));
  const dropped = dropFrame.value;
  return (
    <div class="track" ref={element} style={{ height: `${RULER + count * ROW + GAP}px` }}>
      <Ruler width={width.value} />
      {!items.value.length && <p class="track-empty">{placeholder}</p>}
      {items.value.map((item, index) => {
        const box = boxes[index];
        const top = RULER + (rowOf.get(item.id) ?? 0) * ROW + GAP;
        return box && <TrackItem key={item.id} item={item} left={box.left} width={box.right - box.left - GAP} top={top} pin={(item.start + 0.5) * cell} cell={cell} />;
      })}
      {film.value && <Playhead cell={cell} />}
      {dropped !== null && <i class="drop-line" style={{ left: `${(dropped + 0.5) * cell}px` }} />}
    </div>
  );
}

/** In pixels. A picture's card is wider than one frame: it is centred on its frame but stays within the track. */
function boxOf(item: Item, cell: number, width: number): { id: string; left: number; right: number } {
  if (item.kind === "video") {
    const left = item.start * cell;
    return { id: item.id, left, right: Math.max(left + fixedFrames(item, rules.value) * cell, left + 40) };
  }
  const left = Math.max(0, Math.min(width - CARD, (item.start + 0.5) * cell - CARD / 2));
  return { id: item.id, left, right: left + CARD + GAP };
}

/** Where a video is shown, dragging over the ruler moves the playhead. */
function Ruler({ width }: { width: number }) {
  const { frames } = rules.value;
  const cell = width / frames;
  const last = frames - 1;
  const scrub = useScrub(cell);
  const labelled = ticks(rules.value, width, LABELS_APART).filter((frame) => frame === 0 || (last - frame) * cell >= LABELS_APART || frame === last);
  if (!labelled.includes(last)) labelled.push(last);
  return (
    <div class={`ruler ${film.value ? "seeks" : ""}`} aria-hidden="true" {...scrub}>
      {labelled.map((frame) => (
        <span key={frame} class={frame === 0 ? "first" : frame === last ? "last" : ""} style={{ left: `${(frame + 0.5) * cell}px` }}>
          {frame}
        </span>
      ))}
    </div>
  );
}
