/** The request that the page shows as code. */

import { signal } from "@preact/signals";
import type { Input } from "../server/requests";
import { input } from "./draft";

interface Coded {
  readonly title: string;
  /** Null: the endpoint of the page. */
  readonly endpoint: string | null;
  readonly input: () => Input;
}

/** Null while no code is shown. */
export const coded = signal<Coded | null>(null);

export function showDraftAsCode(): void {
  coded.value = { title: "This request as code", endpoint: null, input: () => input.value };
}

/** `given` is the input of a request, with its seed if that is known. */
export function showAsCode(endpoint: string, given: Input): void {
  coded.value = { title: "This video as code", endpoint, input: () => given };
}
