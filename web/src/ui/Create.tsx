import { useSignal } from "@preact/signals";
import { input, obstacle, refusal, rules, shape, value } from "../model/draft";
import { seconds } from "../model/format";
import { go } from "../model/route";
import { say } from "../model/toast";
import { submit } from "../server/requests";
import type { Facts } from "../server/session";
import { showCode } from "./Code";
import { Button } from "./controls";
import { History } from "./History";
import { Loras } from "./Loras";
import { Prompt } from "./Prompt";
import { Settings } from "./Settings";
import { useShortcuts } from "./shortcuts";
import { Timeline } from "./Timeline";
import { Viewer } from "./Viewer";

export function Create({ facts, id }: { facts: Facts; id: string | null }) {
  const sending = useSignal(false);
  const generate = async () => {
    if (obstacle.value || sending.value) return;
    sending.value = true;
    try {
      refusal.value = null;
      go(`#/r/${await submit(facts.endpoint, input.value)}`);
      document.querySelector(".viewer")?.scrollIntoView({ block: "nearest" });
    } catch (error) {
      say(`The request was not accepted: ${(error as Error).message}`);
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
          <p class="summary">
            <Summary />
          </p>
          <div class="go-buttons">
            <Button icon="code" onClick={showCode}>
              Code
            </Button>
            <Button kind="primary" disabled={!!obstacle.value || sending.value} onClick={generate}>
              {sending.value ? "Sending" : "Generate"}
            </Button>
          </div>
        </div>
      </div>
      <div class="stage">
        <Viewer facts={facts} id={id} />
        <Timeline />
        <History current={id} />
      </div>
    </main>
  );
}

function Summary() {
  if (obstacle.value && value<string | null>("prompt")) return <strong>{obstacle.value}</strong>;
  const size = shape.value;
  const { frames } = rules.value;
  return (
    <>
      {size && `${size.width} × ${size.height} · `}
      {frames} frames · {seconds(frames / value<number>("frame_rate"))}
    </>
  );
}
