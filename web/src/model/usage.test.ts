import { expect, test } from "vitest";
import { describeQuotas, type Quota, type Quotas } from "./limits";
import { type Day, totals } from "./usage";

const day = (changes: Partial<Day>): Day => ({
  day: "2026-11-30",
  key_id: "a",
  name: "studio",
  completed: 1,
  failed: 0,
  cancelled: 0,
  device_seconds: 2,
  bytes: 3,
  ...changes,
});

test("the days of a key are summed up, and the key that used most comes first", () => {
  const days = [day({}), day({ key_id: "b", name: null, device_seconds: 9 }), day({ day: "2026-11-29", failed: 4 })];
  const sums = totals({ days, stored_bytes: { a: 7, c: 8 } });
  expect(sums.map((sum) => sum.key_id)).toEqual(["b", "a", "c"]);
  expect(sums[1]).toEqual({ key_id: "a", name: "studio", completed: 2, failed: 4, cancelled: 0, device_seconds: 4, bytes: 6, stored: 7 });
  expect(sums[2]).toMatchObject({ completed: 0, stored: 8 });
});

test("only the limits that hold are described", () => {
  const none: Quota = { limit: null, used: 3 };
  const quotas: Quotas = { max_requests: none, max_queued: none, max_running: none, max_per_minute: none, max_bytes: none, max_upload_bytes: none };
  expect(describeQuotas(quotas)).toBe("no limit");
  const limited = { ...quotas, max_running: { limit: 2, used: 1 }, max_bytes: { limit: 5_000_000, used: 0 } };
  expect(describeQuotas(limited)).toBe("Running: 1 of 2, Stored bytes: 0 B of 5.0 MB");
});
