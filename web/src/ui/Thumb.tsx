import type { Item } from "../model/draft";
import { Icon } from "./icons";

/** A picture or a frame of a clip. A file on another server gets an icon: the page connects only to its own server. */
export function Thumb({ item }: { item: Pick<Item, "kind" | "local" | "url"> }) {
  const source = item.local ?? (item.url && isOurs(item.url) ? item.url : null);
  if (!source) {
    return (
      <span class="thumb away">
        <Icon name={item.kind === "image" ? "picture" : "clip"} size={22} />
      </span>
    );
  }
  if (item.kind === "image") return <img class="thumb" src={source} alt="" draggable={false} />;
  return <video class="thumb" src={`${source}#t=0.001`} muted playsInline preload="metadata" />;
}

function isOurs(url: string): boolean {
  return /\/files\/[\w-]+\/[^/]+$/.test(url);
}
