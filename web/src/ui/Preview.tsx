import type { Progress } from "../server/requests";

/** What the model sees so far: a strip of frames in one picture, shown one after the other. */
export function Preview({ progress }: { progress: Progress | null }) {
  const preview = progress?.preview;
  if (!preview) return <i class="shimmer" />;
  return <i class="preview" style={{ backgroundImage: `url("${preview.url}")`, "--frames": preview.frames }} />;
}
