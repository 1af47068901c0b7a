/** Formats numbers for display. */

export function seconds(value: number): string {
  if (value < 10) return `${value.toFixed(1)}\u00a0s`;
  if (value < 100) return `${Math.round(value)}\u00a0s`;
  const minutes = Math.floor(value / 60);
  return minutes < 60 ? `${minutes} min ${Math.round(value % 60)} s` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

export function bytes(value: number): string {
  const units = ["B", "KB", "MB", "GB", "TB"];
  const power = value ? Math.min(Math.floor(Math.log10(value) / 3), units.length - 1) : 0;
  const shown = value / 1000 ** power;
  return `${shown < 10 && power ? shown.toFixed(1) : Math.round(shown)} ${units[power] ?? ""}`;
}

/** `at` is a Unix time in seconds. */
export function ago(at: number, now = Date.now() / 1000): string {
  const past = Math.max(0, now - at);
  if (past < 45) return "just now";
  if (past < 3600) return `${Math.max(1, Math.round(past / 60))} min ago`;
  if (past < 86_400) return `${Math.round(past / 3600)} h ago`;
  return new Date(at * 1000).toLocaleDateString(undefined, { day: "numeric", month: "short" });
}

export function plural(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}
