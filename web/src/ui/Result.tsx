import { useSignal } from "@preact/signals";
import { tell } from "../model/trouble";
import { comparing } from "../model/comparing";
import { showAsCode } from "../model/code";
import { copy } from "../model/copying";
import { editRequest } from "../model/entries";
import { ago, bytes, seconds } from "../model/format";
import { extend, frameCount, frameRate, pinClip, pinFrame, pinLastFrame } from "../model/pins";
import { type Film, film } from "../model/player";
import { go } from "../model/route";
import { shownRatio } from "../model/shown";
import { learnSize } from "../model/sizes";
import { type VideoRequest, promptOf, submit } from "../server/requests";
import { Button } from "./controls";
import { deleteVideo } from "./deletion";
import { Icon } from "./icons";
import { lazy } from "./lazy";
import { Player } from "./Player";

const Details = lazy(() => import("./Details").then((found) => found.Details));

export function Result({ request }: { request: VideoRequest }) {
  const output = request.output;
  if (!output) return null;
  const { url } = output.video;
  const vary = async () => {
    const { seed: _, ...input } = request.input;
    try {
      const [id] = await submit(request.endpoint, [input]);
      go(`#/r/${id ?? ""}`);
    } catch (error) {
      tell(error, "The request was not accepted. ");
    }
  };
  return (
    <>
      <Player url={url} label={promptOf(request)} frames={frameCount(request)} rate={frameRate(request)} ratio={shownRatio(request)} onSize={(width, height) => learnSize(request.id, width, height)}>
        <Button icon="frame" onClick={() => withFilm(pinFrame)}>
          Pin this frame
        </Button>
        <Button icon="last" onClick={() => withFilm(pinLastFrame)}>
          Pin last frame
        </Button>
        <Button icon="clip" onClick={() => pinClip(request, url)}>
          Pin the clip
        </Button>
        <Button icon="extend" onClick={() => extend(request, url)}>
          Extend
        </Button>
      </Player>
      <p class="said">{promptOf(request)}</p>
      <Facts request={request} />
      <Everything request={request} />
      <div class="actions">
        <a class="button primary" href={url} download={`keyreel-${output.seed}.mp4`}>
          <Icon name="download" /> Download
        </a>
        <Button icon="vary" onClick={vary}>
          Vary
        </Button>
        <Button icon="compare" onClick={() => startComparing(request.id)}>
          Compare
        </Button>
        <Button icon="code" onClick={() => showAsCode(request.endpoint, { ...request.input, seed: output.seed })}>
          Code
        </Button>
        <Button icon="edit" onClick={() => editRequest(request.input, output.seed)}>
          Edit
        </Button>
        <span class="last-actions">
          <Button kind="quiet" icon="link" label="Copy a link to share" onClick={() => copyLink(request)} />
          <Button kind="quiet" icon="trash" label="Delete" onClick={async () => (await deleteVideo(request)) && go("#/")} />
        </span>
      </div>
    </>
  );
}

function Facts({ request }: { request: VideoRequest }) {
  const { started, finished, output } = request;
  return (
    <dl class="facts">
      <div>
        <dt>Seed</dt>
        <dd>{output?.seed}</dd>
      </div>
      {started !== null && finished !== null && (
        <div>
          <dt>Took</dt>
          <dd>{seconds(finished - started)}</dd>
        </div>
      )}
      {output?.video.file_size && (
        <div>
          <dt>Size</dt>
          <dd>{bytes(output.video.file_size)}</dd>
        </div>
      )}
      <div>
        <dt>Made</dt>
        <dd>{ago(request.created)}</dd>
      </div>
    </dl>
  );
}

function startComparing(id: string): void {
  comparing.value = id;
  document.querySelector(".history")?.scrollIntoView({ behavior: "smooth", block: "nearest" });
}

function Everything({ request }: { request: VideoRequest }) {
  const isOpen = useSignal(false);
  return (
    <details class="everything" onToggle={(event) => (isOpen.value = event.currentTarget.open)}>
      <summary>All settings and inputs</summary>
      {isOpen.value && <Details request={request} />}
    </details>
  );
}

function withFilm(work: (loaded: Film) => Promise<void>): void {
  if (film.value?.video.videoWidth) void work(film.value).catch(tell);
}

function copyLink({ share }: VideoRequest): void {
  const link = new URL(`#/s/${share ?? ""}`, location.href).href;
  void copy(link, "The link is copied. Anyone with the link can see this video, its prompt and its seed.");
}
