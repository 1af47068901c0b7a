/** The files that this tab uploads. They are no part of the draft's history: undoing a step stops no upload. */

import { signal } from "@preact/signals";
import { upload } from "../server/fal";
import { closeIfRevoked } from "../server/session";
import { newId } from "./ids";
import { explain } from "./trouble";

export interface Upload {
  readonly file: File;
  /** An object URL of the file. */
  readonly local: string;
  /** The URL on the server; null until the upload ends. */
  readonly url: string | null;
  /** Between 0 and 1. */
  readonly progress: number;
  readonly failed: string | null;
}

export const uploads = signal<ReadonlyMap<string, Upload>>(new Map());

/** Starts an upload and returns its id. */
export function startUpload(file: File, local = URL.createObjectURL(file)): string {
  const id = newId();
  set(id, { file, local, url: null, progress: 0, failed: null });
  void send(id, file);
  return id;
}

export function retryUpload(id: string): void {
  const found = uploads.value.get(id);
  if (!found) return;
  set(id, { ...found, progress: 0, failed: null });
  void send(id, found.file);
}

/** Forgets the uploads that nothing can show any more, and releases their files. */
export function keepUploads(ids: ReadonlySet<string>): void {
  const gone = [...uploads.value].filter(([id]) => !ids.has(id));
  if (!gone.length) return;
  gone.forEach(([, { local }]) => URL.revokeObjectURL(local));
  uploads.value = new Map([...uploads.value].filter(([id]) => ids.has(id)));
}

async function send(id: string, file: File): Promise<void> {
  try {
    const url = await upload(file, (share) => update(id, { progress: Math.min(share, 0.99) }));
    update(id, { url, progress: 1 });
  } catch (error) {
    if (!closeIfRevoked(error)) update(id, { failed: `${file.name} could not be uploaded. ${explain(error)}` });
  }
}

function update(id: string, part: Partial<Upload>): void {
  const found = uploads.value.get(id);
  if (found) set(id, { ...found, ...part });
}

function set(id: string, next: Upload): void {
  uploads.value = new Map(uploads.value).set(id, next);
}
