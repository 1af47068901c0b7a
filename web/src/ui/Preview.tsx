import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { learnSize } from "../model/sizes";
import type { Progress } from "../server/requests";

interface Strip {
  readonly url: string;
  readonly frames: number;
  readonly ratio: number;
}

/** A preview of the unfinished video. Each preview stays until the next one has loaded. */
export function Preview({ id, progress }: { id: string; progress: Progress | null }) {
  const shown = useSignal<Strip | null>(null);
  const { url, frames = 1 } = progress?.preview ?? {};
  useEffect(() => {
    if (!url) return;
    const picture = new Image();
    picture.src = url;
    const show = () => {
      learnSize(id, picture.naturalWidth * frames, picture.naturalHeight);
      shown.value = { url, frames, ratio: (picture.naturalWidth * frames) / picture.naturalHeight };
    };
    picture.decode().then(show, () => null);
  }, [url, frames]);
  const strip = shown.value;
  if (!strip) return <i class="shimmer" />;
  return (
    <i
      class="preview"
      role="img"
      aria-label="Preview"
      style={{ backgroundImage: `url("${strip.url}")`, "--frames": strip.frames, "--ratio": strip.ratio }}
    />
  );
}
