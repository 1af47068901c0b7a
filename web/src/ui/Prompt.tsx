import { type Signal, useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { facts, problems, setValue, value } from "../model/draft";
import { recentPrompts } from "../model/recent";
import { Button, Field } from "./controls";

/** More examples would push the settings out of view. */
const SHOWN = 6;

export function Prompt() {
  const area = useRef<HTMLTextAreaElement>(null);
  const prompt = String(value("prompt") ?? "");
  const examples = facts.value?.schema.fields.prompt?.["x-examples"] ?? [];
  const isOpen = useSignal(false);
  const isRecent = useSignal(false);
  const choose = (recent: string) => {
    isRecent.value = false;
    setValue("prompt", recent);
    area.current?.focus();
  };
  useEffect(() => {
    // The height follows the text, up to the maximum in the style sheet.
    if (!area.current) return;
    area.current.style.height = "0";
    area.current.style.height = `${area.current.scrollHeight + 2}px`;
  }, [prompt]);
  return (
    <section class="card prompt" aria-label="Prompt">
      <Field label="Prompt" problem={problems.value.get("prompt")} aside={<Aside isRecent={isRecent} />}>
        {({ id, describedBy }) => (
          <textarea
            ref={area}
            id={id}
            rows={3}
            placeholder="Describe the video"
            value={prompt}
            aria-describedby={describedBy}
            onInput={(event) => setValue("prompt", event.currentTarget.value)}
          />
        )}
      </Field>
      {isRecent.value && (
        <ul class="recent" aria-label="Recent prompts">
          {recentPrompts.value.map((recent) => (
            <li key={recent}>
              <Button kind="quiet" onClick={() => choose(recent)}>
                {recent}
              </Button>
            </li>
          ))}
        </ul>
      )}
      {!prompt && !isRecent.value && (
        <div class="examples">
          {examples.slice(0, isOpen.value ? examples.length : SHOWN).map((example) => (
            <Button key={example} kind="quiet" onClick={() => setValue("prompt", example)}>
              {example}
            </Button>
          ))}
          {!isOpen.value && examples.length > SHOWN && (
            <Button kind="quiet" onClick={() => (isOpen.value = true)}>
              More examples
            </Button>
          )}
        </div>
      )}
      {problems.value.get("") && <p class="problem">{problems.value.get("")}</p>}
    </section>
  );
}

function Aside({ isRecent }: { isRecent: Signal<boolean> }) {
  if (!recentPrompts.value.length) return <kbd class="note">Ctrl ↵ generates</kbd>;
  return (
    <Button kind="quiet" icon="history" label="Recent prompts" pressed={isRecent.value} onClick={() => (isRecent.value = !isRecent.value)} />
  );
}
