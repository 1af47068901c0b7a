/** The keys that work anywhere on the page where nothing else uses them. */

import { useEffect } from "preact/hooks";
import { redo, undo } from "../model/draft";
import { film, pause, shuttle, step, togglePlay } from "../model/player";

const PLAYER: Record<string, () => void> = {
  ",": () => step(-1),
  ".": () => step(1),
  j: () => shuttle(-1),
  k: pause,
  l: () => shuttle(1),
  " ": togglePlay,
};

export function useShortcuts(generate: () => Promise<void>): void {
  useEffect(() => {
    const onKey = (event: KeyboardEvent) => {
      if (document.querySelector("dialog[open]")) return;
      const action = event.ctrlKey || event.metaKey ? commandOf(event, generate) : playerAction(event);
      if (!action) return;
      event.preventDefault();
      action();
    };
    // Before the browser's own player, which also has keys.
    addEventListener("keydown", onKey, { capture: true });
    return () => removeEventListener("keydown", onKey, { capture: true });
  });
}

function commandOf(event: KeyboardEvent, generate: () => Promise<void>): (() => void) | undefined {
  if (event.key === "Enter") return () => void generate();
  if (event.altKey || hasOwnHistory(event.target)) return undefined;
  const key = event.key.toLowerCase();
  if (key === "z") return event.shiftKey ? redo : undo;
  return key === "y" ? redo : undefined;
}

/** A line of text has the browser's own undo. The prompt and numbers are part of the draft. */
function hasOwnHistory(target: EventTarget | null): boolean {
  return target instanceof HTMLInputElement && ["text", "url", "search", "password"].includes(target.type);
}

function playerAction(event: KeyboardEvent): (() => void) | undefined {
  if (!film.value || event.altKey || isTyping(event.target)) return undefined;
  if (event.key === " " && isPressed(event.target)) return undefined;
  return PLAYER[event.key.toLowerCase()];
}

function isTyping(target: EventTarget | null): boolean {
  if (target instanceof HTMLInputElement && target.type === "number") return true;
  return target instanceof HTMLTextAreaElement || target instanceof HTMLSelectElement || hasOwnHistory(target);
}

/** Whether the space bar presses the control. */
function isPressed(target: EventTarget | null): boolean {
  return target instanceof Element && target.closest("button, a, input, summary") !== null;
}
