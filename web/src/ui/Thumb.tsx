import type { Item } from "../model/draft";
import { learnSize } from "../model/sizes";
import { Icon } from "./icons";

/** A picture or a frame of a clip. A file on another server gets an icon: the page connects only to its own server. */
export function Thumb({ item }: { item: Pick<Item, "kind" | "name" | "local" | "url"> }) {
  const source = sourceOf(item);
  if (!source) {
    return (
      <span class="thumb away">
        <Icon name={item.kind === "image" ? "picture" : "clip"} size={22} />
      </span>
    );
  }
  const isGif = item.name.toLowerCase().endsWith(".gif");
  if (item.kind === "image" || isGif) {
    return <img class="thumb" src={source} alt="" draggable={false} onLoad={({ currentTarget: { naturalWidth, naturalHeight } }) => learnSize(source, naturalWidth, naturalHeight)} />;
  }
  return (
    <video
      class="thumb"
      src={`${source}#t=0.001`}
      muted
      playsInline
      preload="metadata"
      onLoadedMetadata={({ currentTarget: { videoWidth, videoHeight } }) => learnSize(source, videoWidth, videoHeight)}
    />
  );
}

export function sourceOf({ local, url }: Pick<Item, "local" | "url">): string | null {
  return local ?? (url && isOurs(url) ? url : null);
}

function isOurs(url: string): boolean {
  return /\/files\/[\w-]+\/[^/]+$/.test(url);
}
