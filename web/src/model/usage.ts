/** What a key used on one day, as the server tells it. */
export interface Day {
  readonly day: string;
  readonly key_id: string;
  readonly name: string | null;
  readonly completed: number;
  readonly failed: number;
  readonly cancelled: number;
  readonly device_seconds: number;
  readonly bytes: number;
}

export interface Usage {
  readonly days: readonly Day[];
  readonly stored_bytes: Readonly<Record<string, number>>;
}

/** The sums over all days of a key. */
export type Total = Omit<Day, "day"> & { readonly stored: number };

/** Sums up the days of each key that used or stores something, the longest on a device first. */
export function totals({ days, stored_bytes }: Usage): Total[] {
  const sums = new Map<string, Total>();
  const zero = (key_id: string): Total => ({
    key_id,
    name: null,
    completed: 0,
    failed: 0,
    cancelled: 0,
    device_seconds: 0,
    bytes: 0,
    stored: stored_bytes[key_id] ?? 0,
  });
  for (const key_id of Object.keys(stored_bytes)) sums.set(key_id, zero(key_id));
  for (const day of days) {
    const sum = sums.get(day.key_id) ?? zero(day.key_id);
    sums.set(day.key_id, {
      ...sum,
      name: day.name ?? sum.name,
      completed: sum.completed + day.completed,
      failed: sum.failed + day.failed,
      cancelled: sum.cancelled + day.cancelled,
      device_seconds: sum.device_seconds + day.device_seconds,
      bytes: sum.bytes + day.bytes,
    });
  }
  return [...sums.values()].sort((a, b) => b.device_seconds - a.device_seconds || a.key_id.localeCompare(b.key_id));
}
