/** The request that the page shows as code. */

import { signal } from "@preact/signals";
import type { Input } from "../server/requests";
import { input } from "./draft";

/** Null while no code is shown. */
export const coded = signal<{ readonly title: string; readonly input: () => Input } | null>(null);

export function showDraftAsCode(): void {
  coded.value = { title: "This request as code", input: () => input.value };
}

/** `given` is the input of a video, with its seed. */
export function showAsCode(given: Input): void {
  coded.value = { title: "This video as code", input: () => given };
}
