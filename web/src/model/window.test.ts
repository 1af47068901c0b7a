import { expect, it } from "vitest";
import { shownPart } from "./window";

const GRID = { width: 1000, gap: 12, narrowest: 164, text: 70, count: 600 };

it("shows the rows near the viewport and leaves room for the others", () => {
  const start = shownPart(GRID, 500, 900);
  expect([start.columns, start.from, start.above]).toEqual([5, 0, 0]);
  const middle = shownPart(GRID, -10_000, 900);
  expect(middle.from).toBeGreaterThan(200);
  expect(middle.to - middle.from).toBeLessThan(80);
  for (const part of [start, middle]) expect(part.above + (part.to - part.from) / part.columns + part.below).toBe(120);
});

it("shows the last row when the page has been scrolled past the end", () => {
  const end = shownPart({ ...GRID, count: 7 }, -100_000, 900);
  expect([end.from, end.to, end.above, end.below]).toEqual([5, 7, 1, 0]);
  expect(shownPart({ ...GRID, count: 0 }, 0, 900)).toMatchObject({ from: 0, to: 0 });
  expect(shownPart({ ...GRID, width: 100 }, 0, 900).columns).toBe(1);
});
