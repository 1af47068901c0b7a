import { useRef } from "preact/hooks";
import { facts as known, rules, editRequest } from "../model/draft";
import { ago, bytes, seconds } from "../model/format";
import { addMedia, addUrl } from "../model/intake";
import { grab } from "../model/media";
import { go } from "../model/route";
import { say } from "../model/toast";
import { deleteRequest, type VideoRequest, submit } from "../server/requests";
import type { Facts } from "../server/session";
import { Button } from "./controls";
import { startComparing } from "./History";
import { Icon } from "./icons";

export function Result({ facts, request }: { facts: Facts; request: VideoRequest }) {
  const video = useRef<HTMLVideoElement>(null);
  const output = request.output;
  if (!output) return null;
  const { url } = output.video;
  const vary = async () => {
    const { seed: _, ...input } = request.input;
    go(`#/r/${await submit(facts.endpoint, input)}`);
  };
  return (
    <>
      <div class="screen">
        <video ref={video} src={url} autoPlay loop muted playsInline controls aria-label={output.prompt} crossOrigin="anonymous" />
      </div>
      <p class="said">{output.prompt}</p>
      <Facts request={request} />
      <div class="actions">
        <a class="button primary" href={url} download={`keyreel-${output.seed}.mp4`}>
          <Icon name="download" /> Download
        </a>
        <Button icon="vary" onClick={vary}>
          Vary
        </Button>
        <Button icon="frame" onClick={() => pinFrame(video.current, request)}>
          Pin this frame
        </Button>
        <Button icon="clip" onClick={() => addUrl(url, "video", { name: `clip-${output.seed}.mp4`, length: frameCount(request) })}>
          Pin the clip
        </Button>
        <Button icon="compare" onClick={() => startComparing(request.id)}>
          Compare
        </Button>
        <Button icon="edit" onClick={() => editRequest(request.input, output.seed)}>
          Edit
        </Button>
        <span class="spring" />
        <Button kind="quiet" icon="link" label="Copy a link to share it" onClick={() => copyLink(request)} />
        <Button kind="quiet" icon="trash" label="Delete" onClick={() => deleteRequest(request.id).then(() => go("#/"))} />
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

/** Adds the current frame to the timeline as a picture. */
async function pinFrame(video: HTMLVideoElement | null, request: VideoRequest): Promise<void> {
  if (!video?.videoWidth) return;
  video.pause();
  const frame = Math.min(frameCount(request) - 1, Math.floor(video.currentTime * frameRate(request)));
  await addMedia(await grab(video), `frame-${frame}.png`, "image", null);
}

function frameCount(request: VideoRequest): number {
  return Number(request.input.number_of_frames ?? known.value?.schema.fields.number_of_frames?.default ?? rules.value.frames);
}

function frameRate(request: VideoRequest): number {
  return Number(request.input.frame_rate ?? known.value?.schema.fields.frame_rate?.default ?? 1);
}

function copyLink({ share }: VideoRequest): void {
  const link = new URL(`#/s/${share ?? ""}`, location.href).href;
  navigator.clipboard.writeText(link).then(
    () => say("The link is copied. Whoever has it sees this video, its prompt and its seed."),
    () => say(link),
  );
}
