import { signal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { Button } from "./controls";

interface Question {
  readonly title: string;
  readonly text: string;
  readonly verb: string;
  readonly answer: (isSure: boolean) => void;
}

const asked = signal<Question | null>(null);

/** Asks before something that cannot be undone. `verb` is the label of the button that does it. */
export function confirm(title: string, text: string, verb: string): Promise<boolean> {
  return new Promise((resolve) => {
    asked.value?.answer(false);
    asked.value = { title, text, verb, answer: resolve };
  });
}

export function ConfirmDialog() {
  const dialog = useRef<HTMLDialogElement>(null);
  const question = asked.value;
  useEffect(() => {
    if (question) dialog.current?.showModal();
  }, [question]);
  if (!question) return null;
  const end = (isSure: boolean) => {
    asked.value = null;
    question.answer(isSure);
  };
  return (
    <dialog ref={dialog} class="confirm" aria-labelledby="confirm-title" onClose={() => end(false)}>
      <h2 id="confirm-title">{question.title}</h2>
      <p>{question.text}</p>
      <div class="actions">
        <Button onClick={() => end(false)}>Keep</Button>
        <Button kind="danger" icon="trash" onClick={() => end(true)}>
          {question.verb}
        </Button>
      </div>
    </dialog>
  );
}
