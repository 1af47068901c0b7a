/** Calls the server's own routes. URLs are relative to the page, because the server may run behind a path prefix. */

/** The server accepts the session cookie only with this header, which other sites cannot send. */
const PAGE = { "X-Keyreel-Page": "1" };

/** Milliseconds until a server that does not answer counts as away. */
const PATIENCE = 30_000;

export class HttpError extends Error {
  constructor(
    readonly status: number,
    message: string,
  ) {
    super(message);
  }
}

/** What the server says. fal's client keeps it in the body and has a message of its own. */
export function messageOf(error: unknown): string {
  const { body } = error as { body?: { detail?: unknown } };
  return typeof body?.detail === "string" ? body.detail : (error as Error).message;
}

export function address(path: string): string {
  return new URL(path, document.baseURI).href;
}

export async function getJson<T>(path: string): Promise<T> {
  return parseJson(await (await call("GET", path, undefined, {}, AbortSignal.timeout(PATIENCE))).text()) as T;
}

/** Keeps the digits of seeds that JavaScript's numbers would round. In a string, the quotes would be escaped. */
export function parseJson(text: string): unknown {
  return JSON.parse(text.replace(/(?<!\\)"seed":\s*(-?\d{16,})/g, '"seed":"$1"'));
}

/** Throws HttpError with the server's error message. */
export async function call(
  method: string,
  path: string,
  body?: unknown,
  headers: Record<string, string> = {},
  signal: AbortSignal | null = null,
): Promise<Response> {
  const sent = { ...PAGE, ...headers };
  const init: RequestInit = { method, headers: sent, credentials: "same-origin", signal };
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

/** Saves a response as a file. A plain link would not send the header that the session needs. */
export async function download(path: string, name: string): Promise<void> {
  const url = URL.createObjectURL(await (await call("GET", path)).blob());
  Object.assign(document.createElement("a"), { href: url, download: name }).click();
  URL.revokeObjectURL(url);
}

async function reason(response: Response): Promise<string> {
  const body = (await response.json().catch(() => null)) as { detail?: unknown } | null;
  return typeof body?.detail === "string" ? body.detail : `The server answered ${response.status}.`;
}
