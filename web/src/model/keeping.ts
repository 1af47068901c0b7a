/**
 * Keeps the draft in the browser, for each key apart. Each tab has a draft of its own, which survives a reload and a
 * sign-out. A new tab starts with the draft that was changed last.
 */

import { effect } from "@preact/signals";
import type { Facts } from "../server/session";
import { type Draft, EMPTY, type Entry, type LoraEntry, commit, draft, items, loras, open } from "./draft";
import { UNDO } from "./edits";
import { newEntry, newLora } from "./entries";
import type { Kind } from "./timeline";
import { say } from "./toast";

/** Restores the stored draft, then stores every change until the returned function is called. */
export function keepDraft(known: Facts): () => void {
  const name = `keyreel.draft.${known.key.id}`;
  open(known, EMPTY);
  const stored = sessionStorage.getItem(name) ?? localStorage.getItem(name);
  try {
    if (stored) open(known, restored(stored));
  } catch {
    sessionStorage.removeItem(name);
  }
  let last = asText();
  const stop = effect(() => {
    const text = asText();
    if (text === last) return;
    last = text;
    sessionStorage.setItem(name, text);
    localStorage.setItem(name, text);
  });
  const stopWatching = watchOtherTabs(name);
  return () => {
    stop();
    stopWatching();
  };
}

/** Says once, when the user looks at this tab, that another one has changed a draft of its own. */
function watchOtherTabs(name: string): () => void {
  const over = new AbortController();
  let other: string | null = null;
  let isSaid = false;
  const offer = () => {
    if (other === null || isSaid || document.hidden) return;
    isSaid = true;
    say("Another tab has changed its draft. This tab keeps its own.", { label: "Use the other draft", run: () => take(other ?? "") });
  };
  const note = (event: StorageEvent) => {
    if (event.key !== name || event.newValue === null) return;
    other = event.newValue;
    offer();
  };
  addEventListener("storage", note, over);
  document.addEventListener("visibilitychange", offer, over);
  return () => over.abort();
}

function take(text: string): void {
  commit(restored(text));
  say("This tab now has the other tab's draft.", UNDO);
}

/** What is uploaded so far: files cannot be stored. */
function asText(): string {
  const { values, scales, entries } = draft.value;
  const urls = new Map(items.value.map((item) => [item.id, item.url]));
  return JSON.stringify({
    values,
    scales,
    entries: entries.map((entry) => ({ ...entry, url: urls.get(entry.id), upload: null })).filter((entry) => entry.url),
    loras: loras.value.filter((lora) => lora.uploaded === 1).map((lora) => ({ ...lora, upload: null })),
  });
}

function restored(text: string): Draft {
  const kept = JSON.parse(text) as Record<string, unknown>;
  const entries = (kept.entries ?? []) as (Partial<Entry> & { kind: Kind; name: string })[];
  return {
    values: (kept.values ?? {}) as Draft["values"],
    scales: kept.scales === true,
    entries: entries.map((entry) => newEntry(entry.kind, entry.name, entry)),
    loras: ((kept.loras ?? []) as LoraEntry[]).map((lora) => newLora(lora)),
  };
}
