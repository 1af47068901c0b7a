import { useSignal } from "@preact/signals";
import { explain } from "../model/trouble";
import { useEffect } from "preact/hooks";
import { type Lora, loras, problems } from "../model/draft";
import { addLora, changeLora, presetFile, removeLora } from "../model/edits";
import { newLora } from "../model/entries";
import { addLoraFile } from "../model/intake";
import { knownLoras } from "../model/recent";
import { getJson } from "../server/http";
import { Button, Field, FileButton, Select, Slider } from "./controls";

/** Milliseconds after the last keystroke. */
const TYPING_PAUSE = 400;
const REPOSITORY = /^\w[\w.-]*\/\w[\w.-]*$/;
/** The endpoint has no bounds for the scale; the slider needs some. */
const USUAL_SCALES = { min: -1, max: 2, step: 0.05 };

export function Loras() {
  return (
    <section class="card loras" aria-labelledby="loras-title">
      <div class="card-head">
        <h2 id="loras-title">LoRAs</h2>
        <FileButton label="File" icon="add" accept=".safetensors" multiple onFiles={(files) => files.forEach(addLoraFile)} />
        <Button icon="link" onClick={() => addLora(newLora())}>
          Link or hub
        </Button>
      </div>
      {knownLoras.value.length > 0 && (
        <div class="examples" role="group" aria-label="LoRAs to add">
          {knownLoras.value.map((known) => (
            <Button key={`${known.path} ${known.weight_name ?? ""}`} kind="quiet" icon="add" onClick={() => addLora(newLora(known))}>
              {known.label ?? known.weight_name ?? known.path}
            </Button>
          ))}
        </div>
      )}
      {loras.value.length === 0 && <p class="hint">Add styles and subjects from a .safetensors file, a link or a Hugging Face repository.</p>}
      {loras.value.map((lora, index) => (
        <LoraRow key={lora.id} lora={lora} index={index} />
      ))}
    </section>
  );
}

function LoraRow({ lora, index }: { lora: Lora; index: number }) {
  const problem = (field: string) => problems.value.get(`loras.${index}.${field}`);
  return (
    <div class="lora" role="group" aria-label={`LoRA ${index + 1}`}>
      <div class="lora-head">
        {lora.label ? (
          <p class="file-name" title={lora.label}>
            {lora.label}
            {lora.uploaded < 1 && !lora.failed && <progress value={lora.uploaded} aria-label="Upload" />}
          </p>
        ) : (
          <Field label="Link or repository" problem={problem("path")}>
            {({ id, describedBy }) => (
              <input
                id={id}
                type="text"
                spellcheck={false}
                placeholder="owner/name or https://…"
                value={lora.path}
                aria-describedby={describedBy}
                onInput={(event) => changeLora(lora.id, { path: event.currentTarget.value.trim() }, "path")}
              />
            )}
          </Field>
        )}
        <Button kind="quiet" icon="trash" label={`Remove LoRA ${index + 1}`} onClick={() => removeLora(lora.id)} />
      </div>
      {lora.label && (lora.failed ?? problem("path")) && <p class="problem">{lora.failed ?? problem("path")}</p>}
      {!lora.label && <Files lora={lora} problem={problem("weight_name")} />}
      <Slider label="Scale" {...USUAL_SCALES} value={lora.scale} problem={problem("scale")} onChange={(scale) => changeLora(lora.id, { scale }, "scale")} />
    </div>
  );
}

/** Selects one of the files in a Hugging Face repository. Shows nothing for a link. */
function Files({ lora, problem }: { lora: Lora; problem: string | undefined }) {
  const names = useSignal<readonly string[]>([]);
  const trouble = useSignal<string | null>(null);
  const { id, path } = lora;
  useEffect(() => {
    names.value = [];
    trouble.value = null;
    if (!REPOSITORY.test(path)) return;
    let isOver = false;
    const load = () =>
      getJson<string[]>(`api/loras?repository=${encodeURIComponent(path)}`).then(
        (found) => {
          if (isOver) return;
          names.value = found;
          if (!found.includes(lora.weight_name ?? "")) presetFile(id, found[0] ?? null);
        },
        (error: unknown) => !isOver && (trouble.value = explain(error)),
      );
    const timer = setTimeout(() => void load(), TYPING_PAUSE);
    return () => {
      isOver = true;
      clearTimeout(timer);
    };
  }, [id, path]);
  if (trouble.value) return <p class="hint">{trouble.value}</p>;
  if (!names.value.length) return null;
  return (
    <Select
      label="File in the repository"
      value={lora.weight_name ?? ""}
      options={names.value}
      problem={problem}
      onChange={(weight_name) => changeLora(id, { weight_name })}
    />
  );
}
