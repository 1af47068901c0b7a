import fc from "fast-check";
import { beforeAll, beforeEach, expect, it, vi } from "vitest";
import type { Facts } from "../server/session";
import { placeAt, placeFree } from "./arrange";
import { EMPTY, canRedo, canUndo, commit, draft, items, open, redo, rules, setValue, undo } from "./draft";
import { add, move, nudge, remove, resize, scene } from "./edits";
import { newEntry } from "./entries";
import { aimOf } from "./layout";
import { objection } from "./timeline";

const SCHEMA = { fields: { number_of_frames: { default: 89 } }, image: {}, video: {}, lora: {} };
const FACTS = { temporal: 8, sizes: {}, schema: SCHEMA } as unknown as Facts;

/** Any step of the user. `at` chooses the item, `by` the frame or length. */
const step = fc.record({
  kind: fc.constantFrom("picture", "picture", "clip", "move", "nudge", "resize", "remove", "frames", "scale", "undo", "redo"),
  at: fc.nat(7),
  by: fc.integer({ min: 1, max: 161 }),
});
type Step = typeof step extends fc.Arbitrary<infer T> ? T : never;

function run({ kind, at, by }: Step): void {
  const item = items.value[at % Math.max(1, items.value.length)];
  const entry = newEntry(kind === "clip" ? "video" : "image", `${kind} ${by}`, { length: kind === "clip" ? by + 8 : 1 });
  const placed = (at % 2 ? placeAt(entry, by, scene()) : null) ?? placeFree(entry, scene());
  const steps: Record<Step["kind"], () => unknown> = {
    picture: () => placed && add([placed]),
    clip: () => placed && add([placed]),
    move: () => item && move(item, by),
    nudge: () => item && nudge(item, at % 2 ? 8 : -8),
    resize: () => item?.kind === "video" && resize(item, by),
    remove: () => item && remove(item.id),
    frames: () => setValue("number_of_frames", 9 + (by % 80)),
    scale: () => commit({ scales: !draft.value.scales }),
    undo,
    redo,
  };
  steps[kind]();
  vi.advanceTimersByTime(at * 300); // some steps of the same control become one
}

/** Whether all items fit, however they lie: the shortest clip takes up to 16 frames, because it starts at a multiple of 8. */
function hasRoom(): boolean {
  return items.value.reduce((sum, item) => sum + (item.kind === "image" ? 1 : 16), 0) <= rules.value.frames;
}

function undoAll(): void {
  while (canUndo.value) undo();
}

function redoAll(): void {
  while (canRedo.value) redo();
}

beforeAll(() => void vi.useFakeTimers());
beforeEach(() => open(FACTS, EMPTY));

it("ends where it began after undoing every step, and returns after redoing them", () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
      open(FACTS, EMPTY);
      steps.forEach(run);
      redoAll();
      const [last, laid] = [draft.value, items.value];
      undoAll();
      expect(draft.value).toEqual(EMPTY);
      redoAll();
      expect(draft.value).toEqual(last);
      expect(items.value).toEqual(laid);
    }),
  );
});

it("keeps every wish, whatever the length of the video", () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 20 }), fc.array(fc.integer({ min: 9, max: 161 }), { maxLength: 5 }), (steps, lengths) => {
      open(FACTS, EMPTY);
      steps.forEach(run);
      const [before, frames] = [items.value, rules.value.frames];
      for (const length of [...lengths, frames]) setValue("number_of_frames", length);
      expect(items.value).toEqual(before);
    }),
  );
});

it("never changes the order, and every item has a valid place while there is room", () => {
  fc.assert(
    fc.property(fc.array(step, { minLength: 10, maxLength: 40 }), fc.boolean(), (steps, scales) => {
      open(FACTS, { ...EMPTY, scales });
      for (const each of steps) {
        run(each);
        const sorted = [...items.value].sort((a, b) => a.start - b.start);
        const aims = sorted.map((item) => (item.wanted === item.of - 1 && item.kind === "image" ? Infinity : aimOf(item, rules.value, draft.value.scales)));
        if (!hasRoom()) continue;
        expect(sorted.map((item) => objection(item, sorted.filter((other) => other !== item), rules.value))).toEqual(sorted.map(() => null));
        expect([...aims].sort((a, b) => a - b)).toEqual(aims);
      }
    }),
    { numRuns: 300 },
  );
});

it("places valid wishes exactly: an item is where the user has put it", () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 20 }), fc.nat(7), fc.nat(160), (steps, at, frame) => {
      open(FACTS, EMPTY);
      steps.forEach(run);
      const item = items.value[at % Math.max(1, items.value.length)];
      if (!item) return;
      // One that had to make room may return to its place, now that the item has left.
      const others = items.value.filter((each) => each.id !== item.id && each.notice === null).map(({ id, start }) => [id, start]);
      if (move(item, frame) === "There is no room for it.") return;
      const moved = items.value.find((each) => each.id === item.id);
      expect(moved && objection(moved, items.value.filter((each) => each.id !== item.id), rules.value)).toBeNull();
      const kept = others.filter(([id, start]) => items.value.some((each) => each.id === id && each.start === start));
      if (items.value.every((each) => each.notice === null)) expect(kept).toEqual(others);
    }),
  );
});
