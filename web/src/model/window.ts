/** Which cards of a long grid are near the viewport, so that the page holds only these. */

export interface Layout {
  /** Pixels: of the grid, and between two cards. */
  readonly width: number;
  readonly gap: number;
  /** Pixels of the narrowest card, and of the text under its picture. */
  readonly narrowest: number;
  readonly text: number;
  readonly count: number;
}

export interface Shown {
  readonly columns: number;
  /** Pixels from the top of one row to that of the next. */
  readonly row: number;
  /** The first card that is shown, and the one after the last. */
  readonly from: number;
  readonly to: number;
  /** Rows above and below those that are shown. */
  readonly above: number;
  readonly below: number;
}

/** Pixels around the viewport in which cards are shown, so that scrolling finds them ready. */
const MARGIN = 600;

/**
 * @param top pixels from the top of the viewport to that of the grid
 * @param height pixels of the viewport
 */
export function shownPart({ width, gap, narrowest, text, count }: Layout, top: number, height: number): Shown {
  const columns = Math.max(1, Math.floor((width + gap) / (narrowest + gap)));
  const card = (width - gap * (columns - 1)) / columns;
  const row = Math.round((card * 9) / 16) + text + gap;
  const rows = Math.ceil(count / columns);
  const first = within(Math.floor((-top - MARGIN) / row), Math.max(0, rows - 1));
  const last = within(Math.ceil((height - top + MARGIN) / row), rows);
  return { columns, row, from: first * columns, to: Math.min(count, Math.max(last, first + 1) * columns), above: first, below: Math.max(0, rows - Math.max(last, first + 1)) };
}

function within(value: number, max: number): number {
  return Math.max(0, Math.min(max, value));
}
