import { useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { ago } from "../model/format";
import { comparing } from "../model/comparing";
import { isStill } from "../model/motion";
import { progressText } from "../model/queue";
import { go } from "../model/route";
import { type Shown, shownPart } from "../model/window";
import { type VideoRequest, promptOf } from "../server/requests";
import { Button } from "./controls";
import { deleteVideo } from "./deletion";
import { scrollToViewer } from "./Viewer";

const NEAR = "300px";
/** In pixels, as in the style sheet. */
const CARDS = { gap: 16, narrowest: 150, text: 66 };

/** Holds only the cards near the viewport: a history of a thousand videos must not slow the page down. */
export function Cards({ shown, current }: { shown: readonly VideoRequest[]; current: string | null }) {
  const list = useRef<HTMLUListElement>(null);
  const part = useSignal<Shown | null>(null);
  const measure = () => {
    const box = list.current?.getBoundingClientRect();
    if (box) part.value = shownPart({ ...CARDS, width: box.width, count: shown.length }, box.top, innerHeight);
  };
  useEffect(() => {
    const observer = new ResizeObserver(measure);
    if (list.current) observer.observe(list.current);
    addEventListener("scroll", measure, { passive: true });
    return () => {
      observer.disconnect();
      removeEventListener("scroll", measure);
    };
  });
  useEffect(measure, [shown.length]);
  const { columns = 1, row = 0, from = 0, to = 0, above = 0, below = 0 } = part.value ?? {};
  const style = { "--columns": columns, paddingTop: `${above * row}px`, paddingBottom: `${below * row}px` };
  return (
    <ul class="cards" ref={list} style={style}>
      {shown.slice(from, to).map((each, index) => (
        <Card key={each.id} request={each} isCurrent={each.id === current} place={from + index + 1} of={shown.length} />
      ))}
    </ul>
  );
}

interface CardProps {
  readonly request: VideoRequest;
  readonly isCurrent: boolean;
  readonly place: number;
  readonly of: number;
}

function Card({ request, isCurrent, place, of }: CardProps) {
  const prompt = promptOf(request);
  const open = (event: MouseEvent) => {
    const first = comparing.value;
    if (!first || first === request.id || !request.output) {
      scrollToViewer();
      return;
    }
    event.preventDefault();
    comparing.value = null;
    go(`#/compare/${first}/${request.id}`);
  };
  return (
    <li class={`made ${isCurrent ? "current" : ""}`} aria-setsize={of} aria-posinset={place}>
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
          onPointerEnter={({ currentTarget }) => void (isStill() || currentTarget.play().catch(() => null))}
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
