import { useSignal } from "@preact/signals";
import { items, rules, selected, value } from "../model/draft";
import { plural, seconds } from "../model/format";
import { addUrl, addFiles } from "../model/intake";
import { kindOf } from "../model/media";
import type { Kind } from "../model/timeline";
import { Button, Choice, Field, FileButton } from "./controls";
import { Inspector } from "./Inspector";
import { Track } from "./Track";

const ACCEPTED = "image/*,video/*";

export function Timeline() {
  const asksUrl = useSignal(false);
  const chosen = items.value.find((item) => item.id === selected.value);
  const { frames } = rules.value;
  return (
    <section class="card timeline" aria-labelledby="timeline-title">
      <div class="card-head">
        <h2 id="timeline-title">Timeline</h2>
        <span class="note">
          {plural(frames, "frame")}, {seconds(frames / value<number>("frame_rate"))}
        </span>
        <FileButton label="Pictures or clips" icon="add" accept={ACCEPTED} multiple onFiles={(files) => addFiles(files)} />
        <Button icon="link" label="Add by link" pressed={asksUrl.value} onClick={() => (asksUrl.value = !asksUrl.value)} />
      </div>
      {asksUrl.value && <AddByUrl done={() => (asksUrl.value = false)} />}
      <Track placeholder="Drop pictures and clips here, at the frame where they should appear" />
      {chosen && <Inspector key={chosen.id} item={chosen} />}
    </section>
  );
}

function AddByUrl({ done }: { done: () => void }) {
  const url = useSignal("");
  const kind = useSignal<Kind>("image");
  const submit = (event: Event) => {
    event.preventDefault();
    // The page cannot count the frames of a clip that it knows only by its URL. This is the minimum.
    const length = kind.value === "image" ? 1 : rules.value.temporal + 1;
    addUrl(url.value.trim(), kind.value, { length, exact: kind.value === "image" });
    done();
  };
  return (
    <form class="add-url" onSubmit={submit}>
      <Field label="Link to a picture or clip">
        {({ id }) => (
          <input
            id={id}
            type="url"
            required
            autoFocus
            placeholder="https://…"
            value={url.value}
            onInput={(event) => {
              url.value = event.currentTarget.value;
              kind.value = kindOf("", url.value.split(/[?#]/)[0] ?? "") ?? kind.value;
            }}
          />
        )}
      </Field>
      <Choice label="Type" value={kind.value === "image" ? "picture" : "clip"} options={["picture", "clip"]} onChange={(name) => (kind.value = name === "picture" ? "image" : "video")} />
      <Button kind="primary" submits disabled={!url.value.trim()}>
        Add
      </Button>
    </form>
  );
}
