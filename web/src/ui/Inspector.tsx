import { useSignal } from "@preact/signals";
import { facts, type Item, itemProblem, rules, value } from "../model/draft";
import { change, isTrimmable, move, remove, resize } from "../model/edits";
import { seconds } from "../model/format";
import { replaceMedia } from "../model/intake";
import { fixedFrames } from "../model/timeline";
import { retryUpload } from "../model/uploads";
import { Button, Field, FileButton, Slider } from "./controls";
import { CropEditor } from "./Crop";

/** Edits the item that is selected on the timeline. */
export function Inspector({ item }: { item: Item }) {
  const reason = useSignal<string | null>(null);
  const schema = facts.value?.schema[item.kind];
  const rate = value<number>("frame_rate");
  const place = (frame: number) => (reason.value = move(item, frame));
  return (
    <div class="inspector" role="group" aria-label={`Selected: ${item.name}`}>
      <CropEditor item={item} />
      <div class="inspector-name">
        <p class="file-name" title={item.name}>
          {item.name}
        </p>
        <p class="note">{describe(item)}</p>
      </div>
      <Slider
        label={item.kind === "image" ? "At frame" : "Starts at frame"}
        value={item.start}
        min={schema?.start_frame_number?.minimum ?? 0}
        max={rules.value.frames - 1}
        step={item.kind === "video" ? rules.value.temporal : 1}
        note={seconds(item.start / rate)}
        onChange={place}
      />
      {isTrimmable(item) && (
        <Slider
          label="Frames"
          value={fixedFrames(item, rules.value)}
          min={rules.value.temporal + 1}
          max={fixedFrames({ ...item, start: 0, limit: null }, rules.value)}
          step={rules.value.temporal}
          note={seconds(fixedFrames(item, rules.value) / rate)}
          onChange={(frames) => (reason.value = resize(item, frames))}
        />
      )}
      <Slider
        label="Strength"
        value={item.strength}
        min={schema?.strength?.minimum ?? 0}
        max={schema?.strength?.maximum ?? 1}
        step={0.05}
        onChange={(strength) => change(item.id, { strength }, "strength")}
      />
      <div class="inspector-buttons">
        {item.failed && item.upload && <Button onClick={() => retryUpload(item.upload ?? "")}>Upload again</Button>}
        <FileButton label="Replace" icon="swap" accept={item.kind === "image" ? "image/*" : "video/*"} onFiles={([file]) => file && void replaceMedia(item, file)} />
        <Button kind="danger" icon="trash" onClick={() => remove(item.id)}>
          Remove
        </Button>
      </div>
      <Source item={item} />
      {reason.value && <p class="hint reason-line">{reason.value}</p>}
    </div>
  );
}

/** Shows the problem with the item. If the item is on another server, the user can edit its link. */
function Source({ item }: { item: Item }) {
  const problem = itemProblem(item);
  if (item.upload || (item.url && !/^https?:/.test(item.url)) || item.url?.includes("/files/")) {
    return problem ? (
      <p class="problem" role="alert">
        {problem}
      </p>
    ) : null;
  }
  return (
    <Field label="Link" problem={problem}>
      {({ id, describedBy }) => (
        <input
          id={id}
          type="url"
          value={item.url ?? ""}
          aria-describedby={describedBy}
          onInput={(event) => change(item.id, { url: event.currentTarget.value }, "url")}
        />
      )}
    </Field>
  );
}

function describe(item: Item): string {
  if (item.kind === "image") return item.width ? `Picture, ${item.width} × ${item.height}` : "Picture";
  const fixed = fixedFrames(item, rules.value);
  if (!item.exact) return `Clip, at least ${fixed} frames`;
  if (item.skip) return `Clip, ${fixed} frames from frame ${item.skip} on`;
  return fixed < item.length ? `Clip, the first ${fixed} of ${item.length} frames` : `Clip, ${fixed} frames`;
}
