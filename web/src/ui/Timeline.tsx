import { useSignal } from "@preact/signals";
import { canRedo, canUndo, commit, draft, items, redo, rules, selected, undo, value } from "../model/draft";
import { plural, seconds } from "../model/format";
import { addUrl, addFiles } from "../model/intake";
import { kindOf } from "../model/media";
import type { Kind } from "../model/timeline";
import { Button, Choice, Field, FileButton } from "./controls";
import { lazy } from "./lazy";
import { Track } from "./Track";

const Inspector = lazy(() => import("./Inspector").then((found) => found.Inspector));
const ACCEPTED = "image/*,video/*";

export function Timeline() {
  const asksUrl = useSignal(false);
  const chosen = items.value.find((item) => item.id === selected.value);
  const { frames } = rules.value;
  const { scales } = draft.value;
  return (
    <section class="card timeline" aria-labelledby="timeline-title">
      <div class="card-head">
        <h2 id="timeline-title">Timeline</h2>
        <span class="note">
          {plural(frames, "frame")}, {seconds(frames / value<number>("frame_rate"))}
        </span>
        <Button kind="quiet" icon="undo" label="Undo (Ctrl+Z)" disabled={!canUndo.value} onClick={undo} />
        <Button kind="quiet" icon="redo" label="Redo (Shift+Ctrl+Z)" disabled={!canRedo.value} onClick={redo} />
        <Button icon="scale" label="Scale with length: when you change the number of frames, items keep their relative positions" pressed={scales} onClick={() => commit({ scales: !scales })} />
        <Button icon="link" label="Add by link" pressed={asksUrl.value} onClick={() => (asksUrl.value = !asksUrl.value)} />
        <FileButton label="Pictures or clips" icon="add" accept={ACCEPTED} multiple onFiles={(files) => addFiles(files)} />
      </div>
      {asksUrl.value && <AddByUrl done={() => (asksUrl.value = false)} />}
      <Track placeholder="Drop pictures and clips here, at the frame where they should appear" />
      <Notices />
      {chosen && <Inspector key={chosen.id} item={chosen} />}
    </section>
  );
}

/** What is not where the user put it, and why. */
function Notices() {
  const moved = items.value.filter((item) => item.notice);
  return (
    <ul class="notices" role="status">
      {moved.map((item) => (
        <li key={item.id} class="hint">
          <strong>{item.name}</strong> {item.notice}
        </li>
      ))}
    </ul>
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
