import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { describeQuotas, type Quotas } from "../model/limits";
import { getJson } from "../server/http";
import { requests } from "../server/requests";
import { session } from "../server/session";

/** Tells users how much of their limits they use. It asks again whenever the history changes. */
export function OwnQuotas() {
  const quotas = useSignal<Quotas | null>(null);
  const key = session.value.state === "open" ? session.value.facts.key.id : null;
  const seen = requests.value.map(({ id, state }) => id + state).join();
  useEffect(() => {
    // Without an answer, the page does not tell of limits: a key of the command line has none.
    if (key) getJson<Quotas>(`keys/${key}/limits`).then((found) => (quotas.value = found), () => (quotas.value = null));
  }, [key, seen]);
  const limited = quotas.value && Object.values(quotas.value).some(({ limit }) => limit !== null);
  return quotas.value && limited ? <p class="hint quotas">Your limits: {describeQuotas(quotas.value)}.</p> : null;
}
