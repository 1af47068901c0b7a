import { signal, useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { ago, plural } from "../model/format";
import { progressText } from "../model/queue";
import { go } from "../model/route";
import { say } from "../model/toast";
import { deleteRequest, loadMore, type VideoRequest, requests, mayHaveMore, promptOf } from "../server/requests";
import { confirm } from "./Confirm";
import { Button } from "./controls";
import { Icon } from "./icons";
import { OwnQuotas } from "./Quotas";

/** The first of two videos to compare, while the user chooses the second. */
const comparing = signal<string | null>(null);
const NEAR = "300px";

export function startComparing(id: string): void {
  comparing.value = id;
  document.querySelector(".history")?.scrollIntoView({ behavior: "smooth", block: "nearest" });
}

/** Asks first: nobody can restore a video. Returns whether it is deleted. */
export async function deleteVideo(request: VideoRequest): Promise<boolean> {
  const [what, text] = request.output
    ? ["video", "The video and its share link will be gone for good."]
    : ["request", "It disappears from the history for good."];
  if (!(await confirm(`Delete this ${what}?`, text, "Delete"))) return false;
  return deleteRequest(request.id).then(
    () => true,
    (error: unknown) => {
      say((error as Error).message);
      return false;
    },
  );
}

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
      {requests.value.length > 0 && !shown.length && <p class="hint">Nothing in the history has these words.</p>}
      <ul class="cards">
        {shown.map((each) => (
          <Card key={each.id} request={each} isCurrent={each.id === current} />
        ))}
      </ul>
      {mayHaveMore.value && <Button onClick={() => loadMore().catch((error: unknown) => say((error as Error).message))}>Show older requests</Button>}
      <OwnQuotas />
    </section>
  );
}

function Card({ request, isCurrent }: { request: VideoRequest; isCurrent: boolean }) {
  const prompt = promptOf(request);
  const open = (event: MouseEvent) => {
    const first = comparing.value;
    if (!first || first === request.id || !request.output) return;
    event.preventDefault();
    comparing.value = null;
    go(`#/compare/${first}/${request.id}`);
  };
  return (
    <li class={`made ${isCurrent ? "current" : ""}`}>
      <a href={`#/r/${request.id}`} onClick={open} aria-current={isCurrent ? "true" : undefined}>
        <Thumbnail request={request} />
        <span class="made-prompt">{prompt || "No prompt"}</span>
        <span class="note">{ago(request.created)}</span>
      </a>
      {request.state === "COMPLETED" && (
        <Button kind="quiet" icon="trash" label={`Delete: ${prompt}`} onClick={() => deleteVideo(request)} />
      )}
    </li>
  );
}

/** Loads when it comes near the viewport and plays under the pointer. */
function Thumbnail({ request }: { request: VideoRequest }) {
  const element = useRef<HTMLSpanElement>(null);
  const isNear = useSignal(false);
  useEffect(() => {
    if (!element.current) return;
    const observer = new IntersectionObserver(([entry]) => (isNear.value ||= entry?.isIntersecting ?? false), { rootMargin: NEAR });
    observer.observe(element.current);
    return () => observer.disconnect();
  }, [isNear]);
  const url = request.output?.video.url;
  return (
    <span class="made-thumb" ref={element}>
      {url && isNear.value && (
        <video
          src={`${url}#t=0.001`}
          muted
          loop
          playsInline
          preload="metadata"
          tabIndex={-1}
          onPointerEnter={({ currentTarget }) => void currentTarget.play().catch(() => null)}
          onPointerLeave={({ currentTarget }) => currentTarget.pause()}
        />
      )}
      {!url && <span class={`state ${request.state === "COMPLETED" ? "ended" : "live"}`}>{stateName(request)}</span>}
    </span>
  );
}

function stateName({ state, error_type, progress }: VideoRequest): string {
  if (state === "IN_QUEUE") return "Waiting";
  if (state === "IN_PROGRESS") return progressText(progress);
  return error_type === "client_cancelled" ? "Cancelled" : "Failed";
}

function searchText(request: VideoRequest): string {
  return `${promptOf(request)} ${request.seed}`.toLowerCase();
}
