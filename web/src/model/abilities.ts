/** What the page offers: nothing that no running worker's model can do. */

import { computed } from "@preact/signals";
import { workers } from "../server/health";
import { facts, value, values } from "./draft";

/** The workers that run what this page submits: those of its endpoint's model. */
export const ownWorkers = computed(() => workers.value?.filter(({ pool }) => !pool || !facts.value?.pool || pool === facts.value.pool) ?? []);
/** Empty while nothing is known; then everything is offered. */
const ready = computed(() => ownWorkers.value.filter((worker) => worker.ready));

const HIDDEN: Record<string, () => boolean> = {
  expand_prompt: () => ready.value.every(({ expands }) => expands === false),
  negative_prompt: () => ready.value.every(({ distilled }) => distilled === true),
};

/** Whether a field is offered. One that the draft sets is shown in any case, so that nothing is sent unseen. */
export function isOffered(name: string): boolean {
  return name in values.value || !ready.value.length || !HIDDEN[name]?.();
}

/** The options of a field that some model can run, and the one that the draft has chosen. */
export function offeredOptions(name: string, options: readonly string[]): readonly string[] {
  if (name !== "recipe" || !ready.value.length) return options;
  const known = ready.value.flatMap(({ recipes }) => recipes ?? options);
  return options.filter((option) => known.includes(option) || option === value(name));
}
