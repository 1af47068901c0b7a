import "../style/operate.css";
import { useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { type Given, shown, shownList } from "../model/described";
import { facts } from "../model/draft";
import { titleOf } from "../model/titles";
import { find, type VideoRequest, promptOf } from "../server/requests";
import { isStill } from "../model/motion";
import { Button } from "./controls";

/** Seconds. */
const MAX_DRIFT = 0.05;

/** Plays two videos side by side, in sync. */
export function Compare({ ids }: { ids: readonly [string, string] }) {
  const both = useSignal<readonly VideoRequest[]>([]);
  const problem = useSignal<string | null>(null);
  const first = useRef<HTMLVideoElement>(null);
  const second = useRef<HTMLVideoElement>(null);
  const isPlaying = useSignal(!isStill());
  const moment = useSignal(0);
  useEffect(() => {
    Promise.all(ids.map(find)).then(
      (found) => (both.value = found),
      () => (problem.value = "One of the two videos no longer exists or is not yours."),
    );
  }, [ids]);
  useEffect(() => {
    if (!both.value.length) return;
    // The second video follows the first.
    const timer = setInterval(() => {
      const [one, two] = [first.current, second.current];
      if (one?.duration) moment.value = one.currentTime / one.duration;
      if (one && two && Math.abs(one.currentTime - two.currentTime) > MAX_DRIFT) two.currentTime = one.currentTime;
    }, 100);
    return () => clearInterval(timer);
  }, [both.value]);
  const toggle = () => {
    isPlaying.value = !isPlaying.value;
    for (const video of [first.current, second.current]) void (isPlaying.value ? video?.play() : video?.pause());
  };
  return (
    <main class="compare">
      <div class="card-head">
        <h1>Compare</h1>
        <Button onClick={toggle}>{isPlaying.value ? "Pause" : "Play"}</Button>
        <a class="button" href={`#/r/${ids[0]}`}>
          Back
        </a>
      </div>
      {problem.value && <p class="problem">{problem.value}</p>}
      <div class="pair">
        {both.value.map((request, index) => (
          <Side key={request.id} request={request} video={index ? second : first} />
        ))}
      </div>
      {both.value.length === 2 && <Scrubber video={first} moment={moment.value} />}
      <Differences both={both.value} />
    </main>
  );
}

function Side({ request, video }: { request: VideoRequest; video: { current: HTMLVideoElement | null } }) {
  return (
    <figure class="card">
      <div class="screen">
        <video ref={video} src={request.output?.video.url} autoPlay={!isStill()} loop muted playsInline aria-label={promptOf(request)} />
      </div>
      <figcaption>
        <a class="clamped" href={`#/r/${request.id}`}>{promptOf(request) || "No prompt"}</a>
        <span class="note">Seed {request.seed}</span>
      </figcaption>
    </figure>
  );
}

function Scrubber({ video, moment }: { video: { current: HTMLVideoElement | null }; moment: number }) {
  const seek = (share: number) => {
    if (video.current?.duration) video.current.currentTime = share * video.current.duration;
  };
  return (
    <input
      class="scrubber"
      type="range"
      min={0}
      max={1}
      step={0.001}
      value={moment}
      style={{ "--share": `${moment * 100}%` }}
      aria-label="Position in both videos"
      onInput={(event) => seek(Number(event.currentTarget.value))}
    />
  );
}

const LISTS = new Set(["images", "videos", "loras"]);

/** The fields in which the two requests differ. */
function Differences({ both }: { both: readonly VideoRequest[] }) {
  const [one, two] = both;
  if (!one || !two) return null;
  const inputs = [one, two].map((each): Given => ({ ...each.input, seed: each.seed }));
  const rows = [...new Set(inputs.flatMap(Object.keys))]
    .map((name) => ({ name, values: inputs.map((given) => valueOf(given, name)) }))
    .filter(({ values }) => values[0] !== values[1]);
  if (!rows.length) return <p class="hint">The two requests are the same.</p>;
  return (
    <div class="card scrolls">
      <table>
        <caption>Differences</caption>
        <tbody>
          {rows.map(({ name, values }) => (
            <tr key={name}>
              <th scope="row">{titleOf(name)}</th>
              {values.map((value, index) => (
                <td key={index}>{value}</td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

/** What the request did not set has the schema's default. */
function valueOf(given: Given, name: string): string {
  return LISTS.has(name) ? shownList(given[name]) : shown(given[name] ?? facts.value?.schema.fields[name]?.default);
}
