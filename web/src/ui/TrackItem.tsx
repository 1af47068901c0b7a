import { type Item, itemProblem, rules, selected } from "../model/draft";
import { isTrimmable, move, nudge, remove } from "../model/edits";
import { fixedFrames } from "../model/timeline";
import { CroppedThumb } from "./Crop";
import { showMove, showResize, useDrag } from "./drag";
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
  const used = fixedFrames(item, rules.value);
  const drag = useDrag(cell, item.start, (frame) => showMove(item, frame), item.id);
  const edge = useDrag(cell, used, (frames) => showResize(item, frames), item.id);
  const problem = itemProblem(item);
  const isSelected = selected.value === item.id;
  const classes = ["item", item.kind, isSelected ? "selected" : "", problem ? "wrong" : "", item.notice ? "moved" : "", drag.aim || edge.aim ? "dragging" : ""];
  const what = item.kind === "image" ? "picture" : `clip of ${used} frames`;
  const ghost = drag.aim ? { left: left + (drag.aim.frames - item.start) * cell, width } : edge.aim && { left, width: Math.max(8, edge.aim.frames * cell) };
  return (
    <>
      <i class={`stem ${isSelected ? "selected" : ""}`} style={{ left: `${pin}px`, height: `${top - 18}px` }} />
      {ghost && <i class="ghost" style={{ left: `${ghost.left}px`, top: `${top}px`, width: `${ghost.width}px` }} />}
      <div
        class={classes.join(" ")}
        style={{ left: `${left}px`, top: `${top}px`, width: `${width}px` }}
        role="slider"
        tabIndex={0}
        aria-label={`${item.name}, ${what}`}
        aria-valuemin={0}
        aria-valuemax={rules.value.frames - 1}
        aria-valuenow={item.start}
        aria-valuetext={["frame " + String(item.start), problem, item.notice].filter(Boolean).join(", ")}
        title={item.notice ?? undefined}
        onFocus={() => (selected.value = item.id)}
        onKeyDown={(event) => onKey(event, item)}
        {...drag.handlers}
      >
        {item.kind === "image" ? <CroppedThumb item={item} /> : <Thumb item={item} />}
        {item.kind === "video" && (
          <span class="clip-label">
            <Icon name="clip" size={14} /> {item.exact ? "" : "about "}
            {used} frames
          </span>
        )}
        <span class="frame-label">{item.start}</span>
        {item.uploaded < 1 && !item.failed && <progress value={item.uploaded} aria-label={`Upload of ${item.name}`} />}
        {isTrimmable(item) && <span class="edge" title="Drag to use fewer frames" {...edge.handlers} />}
        {drag.aim && <Bubble fact={`Frame ${item.start}`} reason={drag.aim.reason} />}
        {edge.aim && <Bubble fact={`${used} frames`} reason={edge.aim.reason} />}
      </div>
    </>
  );
}

/** What would be so if the user let go now, and why it is not what the pointer asks for. */
function Bubble({ fact, reason }: { fact: string; reason: string | null }) {
  return (
    <span class="reason">
      <strong>{fact}</strong>
      {reason && <span>{reason}</span>}
    </span>
  );
}

function onKey(event: KeyboardEvent, item: Item): void {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
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
