/** Our own routes. All addresses are relative to the page, which may lie behind a path prefix. */

const PAGE = { "X-Keyreel-Page": "1" };

export class HttpError extends Error {
  constructor(
    readonly status: number,
    message: string,
  ) {
    super(message);
  }
}

export function address(path: string): string {
  return new URL(path, document.baseURI).href;
}

export async function getJson<T>(path: string): Promise<T> {
  return (await call("GET", path)).json() as Promise<T>;
}

/** Throws HttpError with the server's own words. */
export async function call(
  method: string,
  path: string,
  body?: unknown,
  headers: Record<string, string> = {},
): Promise<Response> {
  const sent = { ...PAGE, ...headers };
  const init: RequestInit = { method, headers: sent, credentials: "same-origin" };
  if (body !== undefined) {
    init.body = JSON.stringify(body);
    init.headers = { ...sent, "Content-Type": "application/json" };
  }
  const response = await fetch(address(path), init).catch(() => {
    throw new HttpError(0, "The server does not answer.");
  });
  if (!response.ok) throw new HttpError(response.status, await reason(response));
  return response;
}

async function reason(response: Response): Promise<string> {
  const body = (await response.json().catch(() => null)) as { detail?: unknown } | null;
  return typeof body?.detail === "string" ? body.detail : `The server answered ${response.status}.`;
}
