import "../style/operate.css";
import { explain } from "../model/trouble";
import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { bytes } from "../model/format";
import type { Quotas } from "../model/limits";
import type { Usage } from "../model/usage";
import { getJson } from "../server/http";
import { keepAsking } from "../server/polling";
import type { VideoRequest } from "../server/requests";
import type { Facts } from "../server/session";
import { AuditLog, type Entry } from "./AuditLog";
import { Problem } from "./controls";
import { type Key, Keys } from "./Keys";
import { AllRequests, type Call, Webhooks, type Worker, Workers } from "./OperateTables";
import { UsageOfKeys } from "./Usage";

export interface Overview {
  readonly workers: readonly Worker[];
  readonly queue: Record<string, number>;
  readonly storage: { readonly files: number; readonly size: number };
  readonly webhooks: readonly Call[];
}

const PAUSE = 3000;

/** Shows administrators the state of the whole server. */
export function Operate({ facts }: { facts: Facts }) {
  const overview = useSignal<Overview | null>(null);
  const requests = useSignal<readonly VideoRequest[]>([]);
  const keys = useSignal<readonly Key[]>([]);
  const quotas = useSignal<Readonly<Record<string, Quotas>>>({});
  const usage = useSignal<Usage | null>(null);
  const entries = useSignal<readonly Entry[]>([]);
  const problem = useSignal<string | null>(null);
  const poll = async () => {
    try {
      [overview.value, requests.value, keys.value, quotas.value, usage.value, entries.value] = await Promise.all([
        getJson<Overview>("api/operate"),
        getJson<VideoRequest[]>("api/operate/requests"),
        getJson<Key[]>("keys"),
        getJson<Record<string, Quotas>>("keys/limits"),
        getJson<Usage>("keys/usage"),
        getJson<Entry[]>("api/operate/audit"),
      ]);
      problem.value = null;
    } catch (error) {
      problem.value = explain(error);
    }
  };
  useEffect(() => {
    const ask = async () => {
      if (!document.hidden) await poll();
      return problem.value === null;
    };
    return keepAsking(ask, () => PAUSE).stop;
  }, []);
  const now = overview.value;
  return (
    <main class="operate">
      <h1>Operate</h1>
      {problem.value && <Problem text={problem.value} />}
      {now && (
        <>
          <Figures now={now} />
          <Workers workers={now.workers} />
          <AllRequests requests={requests.value} keys={keys.value} changed={poll} />
          <Keys keys={keys.value} quotas={quotas.value} own={facts.key.id} changed={poll} />
          {usage.value && <UsageOfKeys usage={usage.value} keys={keys.value} />}
          <Webhooks calls={now.webhooks} changed={poll} />
          <AuditLog entries={entries.value} />
        </>
      )}
    </main>
  );
}

function Figures({ now }: { now: Overview }) {
  const figures = [
    ["Waiting", String(now.queue.IN_QUEUE ?? 0)],
    ["Running", String(now.queue.IN_PROGRESS ?? 0)],
    ["Workers", String(now.workers.length)],
    ["Storage", bytes(now.storage.size), `${now.storage.files} files`],
  ];
  return (
    <dl class="figures">
      {figures.map(([name, figure, note]) => (
        <div key={name} class="card">
          <dt>{name}</dt>
          <dd>
            {figure} {note && <small>{note}</small>}
          </dd>
        </div>
      ))}
    </dl>
  );
}
