import "../style/code.css";
import { useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { coded } from "../model/code";
import { copy } from "../model/copying";
import { INSTRUCTIONS, LANGUAGES, type Language, snippet } from "../model/snippets";
import { ownWorkers } from "../model/abilities";
import type { Facts } from "../server/session";
import { Button } from "./controls";

/** Shows the draft or the request of a video as code. */
export function CodeDialog({ facts }: { facts: Facts }) {
  const dialog = useRef<HTMLDialogElement>(null);
  const language = useSignal<Language>("JavaScript");
  const shown = coded.value;
  const hide = () => (coded.value = null);
  useEffect(() => {
    if (shown) dialog.current?.showModal();
  }, [shown]);
  if (!shown) return null;
  const code = snippet(language.value, shown.input(), {
    baseUrl: facts.base_url,
    endpoint: shown.endpoint ?? facts.endpoint,
    model: ownWorkers.value[0]?.model ?? null,
  });
  return (
    <dialog ref={dialog} class="code" aria-labelledby="code-title" onClose={hide}>
      <div class="card-head">
        <h2 id="code-title">{shown.title}</h2>
        <Button kind="quiet" icon="cancel" label="Close" onClick={hide} />
      </div>
      <div class="tabs" role="tablist" aria-label="Language">
        {LANGUAGES.map((name) => (
          <button
            key={name}
            type="button"
            role="tab"
            id={`tab-${name}`}
            aria-selected={name === language.value}
            aria-controls="code-text"
            onClick={() => (language.value = name)}
          >
            {name}
          </button>
        ))}
      </div>
      <pre id="code-text" role="tabpanel" aria-labelledby={`tab-${language.value}`} tabIndex={0}>
        <code>{code}</code>
      </pre>
      <div class="code-foot">
        <p class="hint">
          {INSTRUCTIONS[language.value]}.
          {language.value !== "keyreel" && (
            <>
              {" "}
              The code reads your key from the environment variable <code>FAL_KEY</code>.
            </>
          )}
        </p>
        <Button kind="primary" icon="copy" onClick={() => copy(code)}>
          Copy
        </Button>
      </div>
    </dialog>
  );
}
