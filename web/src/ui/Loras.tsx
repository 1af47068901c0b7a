import { changeLora, type Lora, loras, newLora, problems } from "../model/draft";
import { addLoraFile } from "../model/intake";
import { Button, Field, FileButton, Slider } from "./controls";

/** The scale has no bounds; this is where people look for good ones. */
const USUAL = { min: -1, max: 2, step: 0.05 };

export function Loras() {
  const add = () => (loras.value = [...loras.value, newLora()]);
  return (
    <section class="card loras" aria-labelledby="loras-title">
      <div class="card-head">
        <h2 id="loras-title">LoRAs</h2>
        <FileButton label="File" icon="add" accept=".safetensors" multiple onFiles={(files) => files.forEach((file) => void addLoraFile(file))} />
        <Button icon="link" onClick={add}>
          Link or hub
        </Button>
      </div>
      {loras.value.length === 0 && <p class="hint">Styles and subjects to mix in: a .safetensors file, a link, or a hub repository.</p>}
      {loras.value.map((lora, index) => (
        <LoraRow key={lora.id} lora={lora} index={index} />
      ))}
    </section>
  );
}

function LoraRow({ lora, index }: { lora: Lora; index: number }) {
  const problem = (field: string) => problems.value.get(`loras.${index}.${field}`);
  const isRepository = /^[\w.-]+\/[\w.-]+$/.test(lora.path);
  const choices = choicesIn(problem("weight_name"));
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
                onInput={(event) => changeLora(lora.id, { path: event.currentTarget.value.trim() })}
              />
            )}
          </Field>
        )}
        <Button kind="quiet" icon="trash" label={`Remove LoRA ${index + 1}`} onClick={() => (loras.value = loras.value.filter((each) => each.id !== lora.id))} />
      </div>
      {lora.label && (lora.failed ?? problem("path")) && <p class="problem">{lora.failed ?? problem("path")}</p>}
      {(isRepository || lora.weight_name) && (
        <Field label="File in the repository" problem={problem("weight_name")}>
          {({ id, describedBy }) => (
            <>
              <input
                id={id}
                type="text"
                list={`${id}-files`}
                placeholder="only needed when there are several"
                value={lora.weight_name ?? ""}
                aria-describedby={describedBy}
                onInput={(event) => changeLora(lora.id, { weight_name: event.currentTarget.value || null })}
              />
              <datalist id={`${id}-files`}>
                {choices.map((name) => (
                  <option key={name} value={name} />
                ))}
              </datalist>
            </>
          )}
        </Field>
      )}
      <Slider label="Scale" {...USUAL} value={lora.scale} problem={problem("scale")} onChange={(scale) => changeLora(lora.id, { scale })} />
    </div>
  );
}

/** The server's answer lists what a repository holds. */
function choicesIn(problem: string | undefined): string[] {
  return problem?.match(/[\w./-]+\.safetensors/g) ?? [];
}
