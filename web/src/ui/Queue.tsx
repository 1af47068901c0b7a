import { plural, seconds } from "../model/format";
import { tell } from "../model/trouble";
import { expectedWait, live, moved, progressText, waiting } from "../model/queue";
import { type VideoRequest, cancel, promptOf, reorder } from "../server/requests";
import { confirm } from "./Confirm";
import { Button } from "./controls";
import { Thumb } from "./Thumb";
import { scrollToViewer } from "./Viewer";

/** The user's requests that wait or run. */
export function Queue({ current }: { current: string | null }) {
  const clear = async () => {
    const cleared = waiting.value;
    const effect = `This cancels ${plural(cleared.length, "waiting request")}. A request that already runs continues.`;
    if (await confirm("Clear the queue?", effect, "Clear")) attempt(cancel(...cleared));
  };
  return (
    <section class="card queue" aria-labelledby="queue-title">
      <div class="card-head">
        <h2 id="queue-title">Queue</h2>
        {waiting.value.length > 0 && (
          <Button kind="quiet" onClick={clear}>
            Clear
          </Button>
        )}
      </div>
      <ol class="queued" tabIndex={0} aria-label="Queue">
        {live.value.map((request) => (
          <Entry key={request.id} request={request} isCurrent={request.id === current} />
        ))}
      </ol>
    </section>
  );
}

function Entry({ request, isCurrent }: { request: VideoRequest; isCurrent: boolean }) {
  const prompt = promptOf(request);
  const at = waiting.value.indexOf(request);
  const move = (by: number) => attempt(reorder(moved(request.id, by)));
  return (
    <li class={isCurrent ? "current" : ""}>
      <a href={`#/r/${request.id}`} onClick={scrollToViewer} aria-current={isCurrent ? "true" : undefined} title={prompt}>
        <span class="queued-thumb">
          <Picture request={request} />
          <span class="queued-state">{stateOf(request)}</span>
        </span>
        <span class="file-name">{prompt}</span>
      </a>
      <div class="queued-buttons">
        {at >= 0 && (
          <>
            <Button kind="quiet" icon="earlier" label={`Earlier: ${prompt}`} disabled={at === 0} onClick={() => move(-1)} />
            <Button kind="quiet" icon="later" label={`Later: ${prompt}`} disabled={at === waiting.value.length - 1} onClick={() => move(1)} />
          </>
        )}
        <Button kind="quiet" icon="cancel" label={`Cancel: ${prompt}`} onClick={() => attempt(cancel(request))} />
      </div>
    </li>
  );
}

/** The newest preview, or the first picture or clip of the request. */
function Picture({ request: { progress, input } }: { request: VideoRequest }) {
  if (progress?.preview) return <i style={{ backgroundImage: `url("${progress.preview.url}")`, "--frames": progress.preview.frames }} />;
  const image = firstOf(input.images)?.image_url;
  const url = image ?? firstOf(input.videos)?.video_url ?? null;
  return <Thumb item={{ kind: image ? "image" : "video", name: url ?? "", url, local: null }} />;
}

function firstOf(list: unknown): Record<string, string> | undefined {
  return Array.isArray(list) ? (list[0] as Record<string, string> | undefined) : undefined;
}

function stateOf({ state, progress, position }: VideoRequest): string {
  if (state === "IN_PROGRESS") return progressText(progress);
  const wait = expectedWait(position);
  return wait === null ? "Waiting" : `In ${seconds(wait)}`;
}

function attempt(work: Promise<void>): void {
  work.catch(tell);
}
