import { useSignal } from "@preact/signals";
import { tell } from "../model/trouble";
import { comparing } from "../model/comparing";
import { plural } from "../model/format";
import { loadMore, type VideoRequest, requests, mayHaveMore, promptOf } from "../server/requests";
import { Button } from "./controls";
import { Icon } from "./icons";
import { lazy } from "./lazy";
import { OwnQuotas } from "./Quotas";

const Cards = lazy(() => import("./Cards").then((found) => found.Cards));

export function History({ current }: { current: string | null }) {
  const filter = useSignal("");
  const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
  const shown = requests.value.filter((each) => words.every((word) => searchText(each).includes(word)));
  return (
    <section class="card history" aria-labelledby="history-title">
      <div class="card-head">
        <h2 id="history-title">History</h2>
        {requests.value.length > 0 && <span class="note">{plural(requests.value.length, "request")}</span>}
        {requests.value.length > 3 && (
          <label class="search">
            <Icon name="search" size={16} />
            <input type="search" placeholder="Filter" aria-label="Filter the history" value={filter.value} onInput={(event) => (filter.value = event.currentTarget.value)} />
          </label>
        )}
      </div>
      {comparing.value && (
        <p class="banner" role="status">
          Choose the video to compare with.
          <Button kind="quiet" onClick={() => (comparing.value = null)}>
            Not now
          </Button>
        </p>
      )}
      {!requests.value.length && <p class="hint">Your videos appear here. The server keeps the list, so it is the same in every tab.</p>}
      {requests.value.length > 0 && !shown.length && <p class="hint">No request in the history contains these words.</p>}
      {shown.length > 0 && <Cards shown={shown} current={current} />}
      {mayHaveMore.value && <Button onClick={() => loadMore().catch(tell)}>Show older requests</Button>}
      <OwnQuotas />
    </section>
  );
}

function searchText(request: VideoRequest): string {
  return `${promptOf(request)} ${request.seed}`.toLowerCase();
}
