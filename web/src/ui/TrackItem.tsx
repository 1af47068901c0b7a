import { useSignal } from "@preact/signals";
import { useRef } from "preact/hooks";
import { change, isTrimmable, type Item, itemProblem, items, remove, rules, selected } from "../model/draft";
import { fixedFrames, settle, trim } from "../model/timeline";
import { Icon } from "./icons";
import { Thumb } from "./Thumb";

interface Props {
  readonly item: Item;
  readonly left: number;
  readonly top: number;
  readonly width: number;
  /** The centre of the item's first frame, in pixels. */
  readonly pin: number;
  readonly cell: number;
}

export function TrackItem({ item, left, top, width, pin, cell }: Props) {
  const drag = useDrag(cell, item.start, (frame) => move(item, frame), item.id);
  const edge = useDrag(cell, fixedFrames(item, rules.value), (frames) => resize(item, frames), item.id);
  const reason = drag.reason ?? edge.reason;
  const problem = itemProblem(item);
  const classes = ["item", item.kind, selected.value === item.id ? "selected" : "", problem ? "wrong" : "", drag.active || edge.active ? "dragging" : ""];
  const what = item.kind === "image" ? "picture" : `clip of ${fixedFrames(item, rules.value)} frames`;
  return (
    <>
      <i class={`stem ${selected.value === item.id ? "selected" : ""}`} style={{ left: `${pin}px`, height: `${top - 18}px` }} />
      <div
        class={classes.join(" ")}
        style={{ left: `${left}px`, top: `${top}px`, width: `${width}px` }}
        role="slider"
        tabIndex={0}
        aria-label={`${item.name}, ${what}`}
        aria-valuemin={0}
        aria-valuemax={rules.value.frames - 1}
        aria-valuenow={item.start}
        aria-valuetext={`frame ${item.start}${problem ? `, ${problem}` : ""}`}
        onFocus={() => (selected.value = item.id)}
        onKeyDown={(event) => onKey(event, item)}
        {...drag.handlers}
      >
        <Thumb item={item} />
        {item.kind === "video" && (
          <span class="clip-label">
            <Icon name="clip" size={14} /> {item.exact ? "" : "about "}
            {fixedFrames(item, rules.value)} frames
          </span>
        )}
        <span class="frame-label">{item.start}</span>
        {item.uploaded < 1 && !item.failed && <progress value={item.uploaded} aria-label={`Upload of ${item.name}`} />}
        {isTrimmable(item) && <span class="edge" title="Drag to use fewer frames" {...edge.handlers} />}
        {reason && <span class="reason">{reason}</span>}
      </div>
    </>
  );
}

/** Changes `value` by dragging. `set` applies the nearest valid value and returns why it is not the wanted one. */
function useDrag(cell: number, value: number, set: (wanted: number) => string | null, id: string) {
  const origin = useRef<{ x: number; value: number } | null>(null);
  const active = useSignal(false);
  const reason = useSignal<string | null>(null);
  const end = () => {
    origin.current = null;
    active.value = false;
    reason.value = null;
  };
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
      if (Math.abs(moved) > 3) active.value = true;
      if (active.value) reason.value = set(origin.current.value + moved / cell);
    },
    onPointerUp: end,
    onPointerCancel: end,
    onLostPointerCapture: end,
  };
  return { handlers, active: active.value, reason: reason.value };
}

/** Moves the item to the valid frame nearest to `wanted`. Returns why it is another frame; null if it is not. */
export function move(item: Item, wanted: number): string | null {
  const others = items.value.filter((each) => each.id !== item.id);
  const settled = settle(item, wanted, others, rules.value);
  if (!settled) return "There is no room for it.";
  change(item.id, { start: settled.start });
  return settled.reason;
}

/** Trims the clip. Returns why it is shorter than `wanted`; null if it is not. */
export function resize(item: Item, wanted: number): string | null {
  const others = items.value.filter((each) => each.id !== item.id);
  const trimmed = trim(item, wanted, others, rules.value);
  if (!trimmed) return "There is no room for it.";
  const isWhole = trimmed.limit === fixedFrames({ ...item, limit: null }, rules.value);
  change(item.id, { limit: isWhole ? null : trimmed.limit });
  return trimmed.reason;
}

/** Moves the item to the next valid frame in the direction of `by`. */
function nudge(item: Item, by: number): void {
  const others = items.value.filter((each) => each.id !== item.id);
  for (let wanted = item.start + by; wanted >= 0 && wanted < rules.value.frames; wanted += Math.sign(by)) {
    const settled = settle(item, wanted, others, rules.value);
    if (settled && (settled.start - item.start) * by > 0) {
      change(item.id, { start: settled.start });
      return;
    }
  }
}

function onKey(event: KeyboardEvent, item: Item): void {
  const step = event.shiftKey || item.kind === "video" ? rules.value.temporal : 1;
  const moves: Record<string, () => unknown> = {
    ArrowLeft: () => nudge(item, -step),
    ArrowDown: () => nudge(item, -step),
    ArrowRight: () => nudge(item, step),
    ArrowUp: () => nudge(item, step),
    Home: () => move(item, 0),
    End: () => move(item, rules.value.frames - 1),
    Delete: () => remove(item.id),
    Backspace: () => remove(item.id),
  };
  const action = moves[event.key];
  if (!action) return;
  event.preventDefault();
  action();
}
