import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { refusal, shape } from "../model/draft";
import { find, loaded, type VideoRequest, requests } from "../server/requests";
import { Failed } from "./Failed";
import { Mark } from "./icons";
import { lazy } from "./lazy";

const BUSY = <div class="screen" aria-busy="true" />;
const Result = lazy(() => import("./Result").then((found) => found.Result), BUSY);
const Watch = lazy(() => import("./Watch").then((found) => found.Watch), BUSY);

/** Scrolls to the viewer if what it shows is out of sight. */
export function scrollToViewer(): void {
  document.querySelector(".viewer .screen")?.scrollIntoView({ block: "nearest" });
}

/** Shows the request with this id, or the newest one if `id` is null. */
export function Viewer({ id }: { id: string | null }) {
  const fetched = useSignal<VideoRequest | null>(null);
  const problem = useSignal<string | null>(null);
  const listed = id === null ? requests.value[0] : requests.value.find((each) => each.id === id);
  const isMissing = loaded.value && id !== null && !listed;
  useEffect(() => {
    problem.value = null;
    fetched.value = null;
    if (isMissing && id) {
      find(id).then((found) => (fetched.value = found), () => (problem.value = "This video no longer exists or is not yours."));
    }
  }, [id, isMissing]);
  const shown = listed ?? fetched.value;
  useEffect(() => {
    if (shown && shown.id === id && shown.problems && typeof shown.problems !== "string") {
      refusal.value = { input: shown.input, problems: shown.problems };
    }
  }, [id, shown?.id, shown?.state]);
  return (
    <section class="card viewer" aria-label="Video">
      <Content shown={shown ?? null} problem={problem.value} />
    </section>
  );
}

function Content({ shown, problem }: { shown: VideoRequest | null; problem: string | null }) {
  if (problem) return <Empty title={problem} text="Videos are kept for a limited time." />;
  if (!shown) {
    return loaded.value ? <Empty title="Your video appears here" text="Write a prompt or start with an example. You can drop pictures and clips anywhere." /> : BUSY;
  }
  if (shown.state !== "COMPLETED") return <Watch key={shown.id} request={shown} />;
  return shown.output ? <Result key={shown.id} request={shown} /> : <Failed request={shown} />;
}

function Empty({ title, text }: { title: string; text: string }) {
  const size = shape.value;
  return (
    <div class="screen empty" style={size ? { "--ratio": `${size.width} / ${size.height}` } : {}}>
      <Mark />
      <h2>{title}</h2>
      <p>{text}</p>
    </div>
  );
}
