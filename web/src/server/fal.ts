/** fal's own client, connected through this server's proxy route. It loads when it is first needed. */

import { address } from "./http";

type OnProgress = (share: number) => void;
type Client = ReturnType<typeof import("@fal-ai/client").createFalClient>;

const uploads = new Map<unknown, OnProgress>();
let loading: Promise<Client> | null = null;

export function fal(): Promise<Client> {
  return (loading ??= load().catch((error: unknown) => {
    loading = null;
    throw error;
  }));
}

async function load(): Promise<Client> {
  const { createFalClient } = await import("@fal-ai/client");
  return createFalClient({
    proxyUrl: address("api/fal/proxy"),
    fetch: (input, init) => {
      const onProgress = uploads.get(init?.body);
      return onProgress && init ? put(urlOf(input), init, onProgress) : fetch(input, init);
    },
  });
}

/** Returns the URL of the uploaded file. `onProgress` is not called if the client uploads the file in parts. */
export async function upload(file: Blob, onProgress: OnProgress): Promise<string> {
  uploads.set(file, onProgress);
  try {
    return await (await fal()).storage.upload(file);
  } finally {
    uploads.delete(file);
  }
}

function urlOf(input: RequestInfo | URL): string {
  return input instanceof Request ? input.url : String(input);
}

/** Uses XMLHttpRequest, because fetch does not report the progress of an upload. */
function put(url: string, init: RequestInit, onProgress: OnProgress): Promise<Response> {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open(init.method ?? "PUT", url);
    new Headers(init.headers).forEach((value, name) => request.setRequestHeader(name, value));
    request.upload.onprogress = ({ loaded, total }) => onProgress(loaded / total);
    request.onload = () =>
      resolve(
        new Response(request.responseText, {
          status: request.status,
          headers: { "Content-Type": request.getResponseHeader("Content-Type") ?? "" },
        }),
      );
    request.onerror = () => reject(new TypeError("The upload was interrupted."));
    request.send(init.body as XMLHttpRequestBodyInit);
  });
}
