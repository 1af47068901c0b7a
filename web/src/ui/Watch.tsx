import { useSignal } from "@preact/signals";
import { tell } from "../model/trouble";
import { useEffect, useRef } from "preact/hooks";
import { plural, seconds } from "../model/format";
import { canNotify, toggleNotice, wantsNotice } from "../model/notices";
import { expectedWait } from "../model/queue";
import { shownRatio } from "../model/shown";
import { cancel, type Line, type VideoRequest, type Progress, promptOf } from "../server/requests";
import { watch, type Watched, watched } from "../server/watch";
import { Button } from "./controls";
import { Preview } from "./Preview";

const STAGES: Record<string, string> = {
  inputs: "Fetching pictures, clips and LoRAs",
  expand: "Expanding the prompt",
  check: "Checking the content",
  wait: "Waiting for the device",
  model: "Loading the model",
  text: "Encoding the prompt",
  conditions: "Encoding pictures and clips",
  denoise: "Denoising",
  upsample: "Upsampling",
  refine: "Refining",
  decode: "Decoding the frames",
};

export function Watch({ request }: { request: VideoRequest }) {
  useEffect(() => watch(request.endpoint, request.id), [request.endpoint, request.id]);
  const live = watched.value?.id === request.id ? watched.value : asWatched(request);
  const stopping = useSignal(false);
  const stop = () => {
    stopping.value = true;
    cancel(request).catch((error: unknown) => {
      stopping.value = false;
      tell(error);
    });
  };
  return (
    <>
      <div class="screen watching" aria-busy="true" style={{ "--ratio": shownRatio(request) }}>
        <Preview id={request.id} progress={live.progress} />
        <div class="watch-text" role="status">
          <h2>{headline(live, stopping.value)}</h2>
          <p>{detail(live)}</p>
        </div>
        <Bar progress={live.progress} />
      </div>
      <p class="said">{promptOf(request)}</p>
      <div class="actions">
        <Button kind="danger" icon="cancel" disabled={stopping.value} onClick={stop}>
          {stopping.value ? "Stopping" : "Cancel"}
        </Button>
        {canNotify() && (
          <Button icon="bell" pressed={wantsNotice.value} onClick={toggleNotice}>
            Notify me when it is done
          </Button>
        )}
      </div>
      <Log lines={live.lines} />
    </>
  );
}

function asWatched({ id, state, position, progress }: VideoRequest): Watched {
  return { id, state, position, progress, lines: [] };
}

function headline({ state, position, progress }: Watched, stopping: boolean): string {
  if (stopping) return "Stopping";
  if (state === "IN_QUEUE" && position === null) return "Waiting";
  if (state === "IN_QUEUE") return position ? `${plural(position, "request")} before this one` : "Next in the queue";
  return progress ? (STAGES[progress.stage] ?? progress.stage) : "Starting";
}

function detail({ state, position, progress }: Watched): string {
  if (state === "IN_QUEUE") {
    const wait = expectedWait(position);
    return wait === null ? "" : `Starts in about ${seconds(wait)}`;
  }
  if (!progress?.steps) return "";
  const unit = progress.stage === "decode" ? "Frame" : "Step";
  const left = progress.seconds_left ? `, ${seconds(progress.seconds_left)} left` : "";
  return `${unit} ${progress.step} of ${progress.steps}${left}`;
}

function Bar({ progress }: { progress: Progress | null }) {
  const share = progress?.steps ? progress.step / progress.steps : null;
  return share === null ? (
    <progress class="bar" aria-label="Progress" />
  ) : (
    <progress class="bar" aria-label="Progress" value={share} />
  );
}

function Log({ lines }: { lines: readonly Line[] }) {
  const list = useRef<HTMLOListElement>(null);
  useEffect(() => {
    list.current?.scrollTo({ top: list.current.scrollHeight });
  }, [lines.length]);
  return (
    <details class="log">
      <summary>Log</summary>
      <ol ref={list} tabIndex={0} aria-label="Log">
        {lines.map((line, index) => (
          <li key={index} class={line.level.toLowerCase()}>
            <time>{line.timestamp.slice(11, 19)}</time> {line.message}
          </li>
        ))}
      </ol>
    </details>
  );
}
