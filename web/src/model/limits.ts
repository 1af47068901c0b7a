import { bytes } from "./format";

/** What a key may have and do; null means no limit. The names are the server's. */
export interface Limits {
  readonly max_requests: number | null;
  readonly max_queued: number | null;
  readonly max_running: number | null;
  readonly max_per_minute: number | null;
  readonly max_bytes: number | null;
}

export const NO_LIMITS: Limits = { max_requests: null, max_queued: null, max_running: null, max_per_minute: null, max_bytes: null };

export const LIMIT_NAMES: Readonly<Record<keyof Limits, string>> = {
  max_requests: "Requests at once",
  max_queued: "Waiting",
  max_running: "Running",
  max_per_minute: "A minute",
  max_bytes: "Stored bytes",
};

/** Lists the limits that are set, or says that there are none. */
export function describeLimits(limits: Limits): string {
  const set = (Object.keys(LIMIT_NAMES) as (keyof Limits)[]).flatMap((name) => {
    const limit = limits[name];
    return limit === null ? [] : [`${LIMIT_NAMES[name]}: ${name === "max_bytes" ? bytes(limit) : limit}`];
  });
  return set.join(", ") || "no limit";
}
