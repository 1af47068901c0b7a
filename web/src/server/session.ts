/** Who looks at the page. The key is exchanged for a cookie that scripts cannot read, and kept nowhere. */

import { signal } from "@preact/signals";
import type { Sizes } from "../model/canvas";
import { type Schema, readSchema } from "../model/schema";
import { HttpError, call, getJson } from "./http";

export interface Facts {
  readonly version: string;
  readonly endpoint: string;
  readonly base_url: string;
  readonly key: { readonly id: string; readonly name: string; readonly admin: boolean };
  readonly sizes: Sizes;
  readonly temporal: number;
  readonly retention: number;
  readonly schema: Schema;
}

export type Session =
  | { readonly state: "opening" }
  | { readonly state: "closed"; readonly reason: string | null }
  | { readonly state: "open"; readonly facts: Facts };

export const session = signal<Session>({ state: "opening" });

/** With the key of the URL, if there is one: it is taken out of it before anything else happens. */
export async function openSession(): Promise<void> {
  const key = takeKey();
  try {
    if (key) await signIn(key);
    else await load();
  } catch (error) {
    const isUnknown = error instanceof HttpError && error.status === 401 && !key;
    session.value = { state: "closed", reason: isUnknown ? null : (error as Error).message };
  }
}

/** Throws HttpError. */
export async function signIn(key: string): Promise<void> {
  await call("POST", "api/session", undefined, { Authorization: `Key ${key.trim()}` });
  await load();
}

export async function signOut(): Promise<void> {
  await call("DELETE", "api/session");
  session.value = { state: "closed", reason: null };
}

function takeKey(): string | null {
  const match = /^#key=(.+)$/.exec(location.hash);
  // Behind a prefix that came without its last slash, links to views would otherwise load the page again.
  const home = new URL(".", document.baseURI).pathname;
  history.replaceState(null, "", home + location.search + (match ? "" : location.hash));
  return match ? decodeURIComponent(match[1] ?? "") : null;
}

async function load(): Promise<void> {
  const facts = await getJson<Omit<Facts, "schema">>("api/playground");
  const document = await getJson<Parameters<typeof readSchema>[0]>(
    `api/openapi/queue/openapi.json?endpoint_id=${facts.endpoint}`,
  );
  session.value = { state: "open", facts: { ...facts, schema: readSchema(document) } };
}
