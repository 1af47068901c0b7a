/** fal's own client, through this server's proxy: what works here works in everybody's programs. */

import { createFalClient } from "@fal-ai/client";
import { address } from "./http";

type Progress = (share: number) => void;

const uploads = new Map<unknown, Progress>();

export const fal = createFalClient({
  proxyUrl: address("api/fal/proxy"),
  fetch: (input, init) => {
    const progress = uploads.get(init?.body);
    return progress && init ? put(urlOf(input), init, progress) : fetch(input, init);
  },
});

/** The URL of the uploaded file. `progress` hears of it unless the file is sent in parts. */
export async function upload(file: Blob, progress: Progress): Promise<string> {
  uploads.set(file, progress);
  try {
    return await fal.storage.upload(file);
  } finally {
    uploads.delete(file);
  }
}

function urlOf(input: RequestInfo | URL): string {
  return input instanceof Request ? input.url : String(input);
}

/** Fetch says nothing of what has been sent; XMLHttpRequest does. */
function put(url: string, init: RequestInit, progress: Progress): Promise<Response> {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open(init.method ?? "PUT", url);
    new Headers(init.headers).forEach((value, name) => request.setRequestHeader(name, value));
    request.upload.onprogress = ({ loaded, total }) => progress(loaded / total);
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
