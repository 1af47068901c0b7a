import { bytes } from "./format";

/** What a key may have and do; null means the server's default. The names are the server's. */
export interface Limits {
  readonly max_requests: number | null;
  readonly max_queued: number | null;
  readonly max_running: number | null;
  readonly max_per_minute: number | null;
  readonly max_bytes: number | null;
  readonly max_upload_bytes: number | null;
}

export const NO_LIMITS: Limits = { max_requests: null, max_queued: null, max_running: null, max_per_minute: null, max_bytes: null, max_upload_bytes: null };

export const LIMIT_NAMES: Readonly<Record<keyof Limits, string>> = {
  max_requests: "Requests at once",
  max_queued: "Waiting",
  max_running: "Running",
  max_per_minute: "Per minute",
  max_bytes: "Stored bytes",
  max_upload_bytes: "Uploaded bytes per day",
};

/** A limit that holds for a key, and how much of it is used. */
export interface Quota {
  readonly limit: number | null;
  readonly used: number;
}

export type Quotas = Readonly<Record<keyof Limits, Quota>>;

/** Lists how much is used of each limit that holds, or says that there are none. */
export function describeQuotas(quotas: Quotas): string {
  const limited = (Object.keys(LIMIT_NAMES) as (keyof Limits)[]).flatMap((name) => {
    const { limit, used } = quotas[name];
    const shown = name.endsWith("_bytes") ? bytes : String;
    return limit === null ? [] : [`${LIMIT_NAMES[name]}: ${shown(used)} of ${shown(limit)}`];
  });
  return limited.join(", ") || "no limit";
}
