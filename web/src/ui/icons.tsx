/** SVG paths on a grid of 20 by 20 units. */

const PATHS = {
  add: "M10 4v12M4 10h12",
  back: "M13 5l-6 5 6 5zM5 5v10",
  bell: "M5 14c1-1 1-2 1-5a4 4 0 018 0c0 3 0 4 1 5zM8.5 16.5h3",
  cancel: "M5 5l10 10M15 5L5 15",
  clip: "M3 5h14v10H3zM3 8h14M3 12h14M7 5v3M7 12v3M13 5v3M13 12v3",
  code: "M7 6l-4 4 4 4M13 6l4 4-4 4",
  compare: "M3 5h6v10H3zM11 5h6v10h-6z",
  copy: "M7 7h9v9H7zM4 13V4h9",
  extend: "M3 5h8v10H3zM11 10h6M14.5 7.5L17 10l-2.5 2.5",
  dice: "M4 4h12v12H4zM7.5 7.5h.01M12.5 7.5h.01M10 10h.01M7.5 12.5h.01M12.5 12.5h.01",
  download: "M10 3v9M6 9l4 4 4-4M4 16h12",
  earlier: "M12 5l-5 5 5 5",
  edit: "M4 16l1-4 8-8 3 3-8 8zM11.5 5.5l3 3",
  forward: "M7 5l6 5-6 5zM15 5v10",
  frame: "M3 6V3h3M14 3h3v3M17 14v3h-3M6 17H3v-3M7 7h6v6H7z",
  history: "M4 10a6 6 0 106-6c-2 0-3.6.9-4.7 2.3M4 3.5v3.3h3.3M10 7v3.5l2.3 1.3",
  last: "M3 4h9v12H3zM16 4v12M6.5 8l2.5 2-2.5 2",
  later: "M8 5l5 5-5 5",
  link: "M8.5 11.5l3-3M9 6l1.5-1.5a3.2 3.2 0 014.5 4.5L13.5 10.5M11 14l-1.5 1.5A3.2 3.2 0 015 11l1.5-1.5",
  lock: "M5 9h10v7H5zM7 9V6.5a3 3 0 016 0V9",
  moon: "M16 12.5A6.5 6.5 0 017.5 4a6.5 6.5 0 108.5 8.5z",
  open: "M5 9h10v7H5zM7 9V6.5a3 3 0 015.8-1",
  pause: "M7 5v10M13 5v10",
  picture: "M3 4h14v12H3zM3 13l4-4 4 4 2-2 4 4M13 7.5h.01",
  play: "M6 4l10 6-10 6z",
  redo: "M12 4l4 4-4 4M16 8H8a4 4 0 000 8h4",
  scale: "M3 4v12M17 4v12M6 10h8M8 7.5L5.5 10 8 12.5M12 7.5l2.5 2.5-2.5 2.5",
  search: "M9 4a5 5 0 110 10A5 5 0 019 4zM13 13l4 4",
  sun: "M10 6.5a3.5 3.5 0 110 7 3.5 3.5 0 010-7zM10 2v1.5M10 16.5V18M2 10h1.5M16.5 10H18M4.3 4.3l1.1 1.1M14.6 14.6l1.1 1.1M4.3 15.7l1.1-1.1M14.6 5.4l1.1-1.1",
  swap: "M4 7h11l-3-3M16 13H5l3 3",
  trash: "M4 6h12M8 6V4h4v2M6 6l.7 10h6.6L14 6",
  undo: "M8 4L4 8l4 4M4 8h8a4 4 0 010 8H8",
  vary: "M15.5 8A6 6 0 005 6.5L3.5 8M3.5 4v4h4M4.5 12A6 6 0 0015 13.5l1.5-1.5M16.5 16v-4h-4",
} as const;

export type IconName = keyof typeof PATHS;

export function Icon({ name, size = 18 }: { name: IconName; size?: number }) {
  return (
    <svg class="icon" viewBox="0 0 20 20" width={size} height={size} aria-hidden="true">
      <path d={PATHS[name]} />
    </svg>
  );
}

export function Mark() {
  return (
    <svg viewBox="0 0 32 32" width="26" height="26" aria-hidden="true">
      <path class="mark-outer" d="M16 4 28 16 16 28 4 16Z" />
      <path class="mark-inner" d="M16 11.5 20.5 16 16 20.5 11.5 16Z" />
    </svg>
  );
}
