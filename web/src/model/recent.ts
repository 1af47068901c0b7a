/** What the user has used lately, according to the history. */

import { computed } from "@preact/signals";
import { ownWorkers } from "./abilities";
import { type VideoRequest, requests } from "../server/requests";
import { type LoraEntry, loras } from "./draft";
import { labelOf } from "./entries";

const PROMPTS = 8;
const LORAS = 6;

export type KnownLora = Pick<LoraEntry, "path" | "weight_name" | "label"> & { readonly scale?: number };

export const recentPrompts = computed(() => {
  const prompts = requests.value.map(({ input }) => input.prompt).filter((prompt): prompt is string => typeof prompt === "string" && prompt.trim() !== "");
  return [...new Set(prompts)].slice(0, PROMPTS);
});

/** LoRAs that a click adds: those that ship with the model of a worker, then those of earlier requests. */
export const knownLoras = computed(() => {
  const shipped = ownWorkers.value.flatMap((worker) => worker.loras ?? []).map((path): KnownLora => ({ path, weight_name: null, label: labelOf(path) }));
  const used = requests.value.filter(isUsable).flatMap(({ input }) => (input.loras ?? []) as Partial<KnownLora>[]).map(({ path = "", weight_name = null, scale }): KnownLora => ({ path, weight_name, label: labelOf(path), ...(scale === undefined ? {} : { scale }) }));
  const taken = new Set(loras.value.map(identity));
  const shownFirst = new Map([...shipped, ...used.filter(({ path }) => !path.startsWith("keyreel:"))].reverse().map((lora) => [identity(lora), lora]));
  const free = [...shownFirst.values()].reverse().filter((lora) => lora.path && !taken.has(identity(lora)));
  return free.slice(0, shipped.length + LORAS);
});

/** A request may have failed because of its LoRAs. */
function isUsable({ state, output, error_type }: VideoRequest): boolean {
  return state !== "COMPLETED" || output !== undefined || error_type === "client_cancelled";
}

function identity({ path, weight_name }: Pick<LoraEntry, "path" | "weight_name">): string {
  return `${path} ${weight_name ?? ""}`;
}
