import { useSignal } from "@preact/signals";
import { tell } from "../model/trouble";
import { useEffect } from "preact/hooks";
import { showDraftAsCode } from "../model/code";
import { input, obstacle, refusal, rules, shape, value } from "../model/draft";
import { plural, seconds } from "../model/format";
import { live, running } from "../model/queue";
import { go, replace } from "../model/route";
import { seedsFrom } from "../model/seed";
import { say } from "../model/toast";
import { type Input, type Seed, loaded, submit } from "../server/requests";
import type { Facts } from "../server/session";
import { Button, Choice } from "./controls";
import { History } from "./History";
import { lazy } from "./lazy";
import { Loras } from "./Loras";
import { Prompt } from "./Prompt";
import { Settings } from "./Settings";
import { useShortcuts } from "./shortcuts";
import { Timeline } from "./Timeline";
import { Viewer, scrollToViewer } from "./Viewer";

const Queue = lazy(() => import("./Queue").then((found) => found.Queue));
/** How many videos a click can make, each with a seed of its own. */
const COUNTS = ["1", "2", "4"];

export function Create({ facts, id }: { facts: Facts; id: string | null }) {
  const sending = useSignal(false);
  const count = useSignal("1");
  useEffect(() => {
    // Whoever opens the page sees what runs.
    if (id === null && loaded.value && running.value) replace(`#/r/${running.value.id}`);
  }, [id, loaded.value]);
  const generate = async () => {
    if (obstacle.value || sending.value) return;
    sending.value = true;
    try {
      refusal.value = null;
      show(await submit(facts.endpoint, seeded(Number(count.value))), id);
    } catch (error) {
      tell(error, "The request was not accepted. ");
    } finally {
      sending.value = false;
    }
  };
  useShortcuts(generate);
  return (
    <main class="create">
      <h1 class="hidden">Create a video</h1>
      <div class="compose">
        <div class="asked">
          <Prompt />
          <Settings facts={facts} />
          <Loras />
        </div>
        <div class="go">
          <p class="summary" id="summary">
            <Summary />
          </p>
          <div class="go-buttons">
            <Button icon="code" onClick={showDraftAsCode}>
              Code
            </Button>
            <Choice label="Videos" value={count.value} options={COUNTS} title={(each) => `×${each}`} onChange={(chosen) => (count.value = chosen)} />
            <Button kind="primary" describedBy="summary" disabled={!!obstacle.value || sending.value} onClick={generate}>
              {sending.value ? "Sending" : "Generate"}
            </Button>
          </div>
        </div>
      </div>
      <div class="stage">
        <Viewer id={id} />
        {live.value.some((each) => each.id !== id) && <Queue current={id} />}
        <Timeline />
      </div>
      <History current={id} />
    </main>
  );
}

/** The draft's input, once for each video. */
function seeded(count: number): Input[] {
  const seeds = seedsFrom(value<Seed | null>("seed"), count);
  return seeds.map((seed) => (seed === null ? input.value : { ...input.value, seed }));
}

/** Shows the first of the new requests, unless the user is watching one that runs. */
function show([first, ...others]: readonly string[], current: string | null): void {
  if (running.value && running.value.id === current) {
    say(others.length ? `${plural(others.length + 1, "request")} added to the queue.` : "Added to the queue.");
    return;
  }
  go(`#/r/${first ?? ""}`);
  scrollToViewer();
}

function Summary() {
  if (obstacle.value) return <strong>{obstacle.value}</strong>;
  const size = shape.value;
  const { frames } = rules.value;
  return (
    <>
      {size && `${size.width} × ${size.height} · `}
      {frames} frames · {seconds(frames / value<number>("frame_rate"))}
    </>
  );
}
