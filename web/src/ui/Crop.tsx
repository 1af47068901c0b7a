import { useSignal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useRef } from "preact/hooks";
import { type Item, shape } from "../model/draft";
import { type Box, type Point, CENTRE, cropBox, isCropped, movedFocus } from "../model/crop";
import { change } from "../model/edits";
import { Thumb, sourceOf } from "./Thumb";

const ARROWS: Record<string, readonly [number, number]> = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
/** Share of the picture by which an arrow key moves the crop. */
const STEP = 0.02;

/** The part of the picture that the video shows; null if that is unknown or all of it. */
function boxOf(item: Item, focus = item.focus): Box | null {
  if (!shape.value || !item.width || !sourceOf(item)) return null;
  const box = cropBox(item, shape.value, focus);
  return isCropped(box) ? box : null;
}

/** The whole picture, with the part that the video shows marked. */
export function CroppedThumb({ item }: { item: Item }) {
  const box = boxOf(item);
  if (!box) return <Thumb item={item} />;
  return (
    <Whole item={item}>
      <i class="crop" style={styleOf(box)} />
    </Whole>
  );
}

/** The same, and the user can move the part. */
export function CropEditor({ item }: { item: Item }) {
  const picture = useRef<HTMLElement | null>(null);
  const origin = useRef<{ x: number; y: number; box: Box } | null>(null);
  const moved = useSignal<Point | null>(null);
  const box = boxOf(item, moved.value ?? item.focus);
  if (!box) return <Thumb item={item} />;
  const isAcross = box.width < 1;
  const put = (focus: Point) => change(item.id, { focus }, "crop");
  const end = () => {
    if (moved.value) put(moved.value);
    moved.value = origin.current = null;
  };
  const begin = (event: PointerEvent) => {
    const target = event.currentTarget as HTMLElement;
    target.setPointerCapture(event.pointerId);
    picture.current = target.parentElement;
    origin.current = { x: event.clientX, y: event.clientY, box };
  };
  const follow = (event: PointerEvent) => {
    const from = origin.current;
    if (!from || !picture.current) return;
    const { clientWidth, clientHeight } = picture.current;
    moved.value = movedFocus(from.box, (event.clientX - from.x) / clientWidth, (event.clientY - from.y) / clientHeight);
  };
  const onKey = (event: KeyboardEvent) => {
    const by = ARROWS[event.key];
    if (!by) return;
    event.preventDefault();
    put(movedFocus(box, by[0] * STEP, by[1] * STEP));
  };
  const share = Math.round(100 * (isAcross ? box.left / (1 - box.width) : box.top / (1 - box.height)));
  return (
    <Whole item={item}>
      <div
        class="crop movable"
        style={styleOf(box)}
        role="slider"
        tabIndex={0}
        aria-label="Crop"
        aria-orientation={isAcross ? "horizontal" : "vertical"}
        aria-valuenow={share}
        aria-valuetext={`${share} % from the ${isAcross ? "left" : "top"}`}
        title="The video shows this part. Drag to move it; double-click to centre it."
        onPointerDown={begin}
        onPointerMove={follow}
        onPointerUp={end}
        onPointerCancel={() => (moved.value = origin.current = null)}
        onDblClick={() => put(CENTRE)}
        onKeyDown={onKey}
      />
    </Whole>
  );
}

function Whole({ item, children }: { item: Item; children: ComponentChildren }) {
  return (
    <span class="whole">
      <span class="fitted" style={{ "--ratio": item.width / item.height }}>
        <Thumb item={item} />
        {children}
      </span>
    </span>
  );
}

function styleOf({ left, top, width, height }: Box): Record<string, string> {
  const percent = (share: number) => `${share * 100}%`;
  return { left: percent(left), top: percent(top), width: percent(width), height: percent(height) };
}
