/** The user's session. The page exchanges the key for a cookie that scripts cannot read, and does not store the key. */

import { signal } from "@preact/signals";
import { HttpError, call, getJson, messageOf } from "./http";
import { type Schema, readSchema } from "./schema";

/** Width and height in pixels, by resolution and aspect ratio. */
export type Sizes = Record<string, Record<string, [number, number]>>;

/** What the server accepts at most: bytes per file, pixels per picture or frame, seconds per clip. */
export interface FileLimits {
  readonly image_bytes: number;
  readonly video_bytes: number;
  readonly lora_bytes: number;
  readonly pixels: number;
  readonly video_seconds: number;
}

/** What the server tells a signed-in page about itself, its endpoint and the key. */
export interface Facts {
  readonly version: string;
  readonly endpoint: string;
  /** The queue of the model that runs the endpoint. Servers of an older release have only one. */
  readonly pool?: string;
  readonly base_url: string;
  readonly key: { readonly id: string; readonly name: string; readonly admin: boolean };
  readonly sizes: Sizes;
  readonly temporal: number;
  readonly retention: number;
  readonly limits: FileLimits;
  readonly schema: Schema;
}

export type Session =
  | { readonly state: "opening" }
  | { readonly state: "closed"; readonly reason: string | null }
  | { readonly state: "open"; readonly facts: Facts };

const UNKNOWN_KEY = "The server does not know this key, or the key has ended. Copy the whole key, with the colon in it, or create another.";

export const session = signal<Session>({ state: "opening" });

/** Signs in with the key in the URL, if there is one. Removes the key from the URL before anything else. */
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
  await call("POST", "api/session", undefined, { Authorization: `Key ${key.trim()}` }).catch((error: unknown) => {
    throw error instanceof HttpError && error.status === 401 ? new HttpError(401, UNKNOWN_KEY) : error;
  });
  await load();
}

export async function signOut(): Promise<void> {
  await call("DELETE", "api/session");
  session.value = { state: "closed", reason: null };
}

/** Closes the session if the error says that the server no longer accepts it. Returns whether it did. */
export function closeIfRevoked(error: unknown): boolean {
  if ((error as { status?: number }).status !== 401) return false;
  session.value = { state: "closed", reason: messageOf(error) };
  return true;
}

function takeKey(): string | null {
  const match = /^#key=(.+)$/.exec(location.hash);
  // If the URL of a path prefix lacks its trailing slash, links to views would otherwise reload the page.
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
