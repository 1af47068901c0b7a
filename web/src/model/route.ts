/** The view that the URL selects: `#/`, `#/r/ID`, `#/s/TOKEN`, `#/compare/ID/ID`, `#/operate`. */

import { signal } from "@preact/signals";

export type Route =
  | { readonly view: "create"; readonly id: string | null }
  | { readonly view: "compare"; readonly ids: readonly [string, string] }
  | { readonly view: "shared"; readonly token: string }
  | { readonly view: "operate" };

export function readRoute(hash: string): Route {
  const [, view, first, second] = hash.split("/");
  if (view === "operate") return { view };
  if (view === "s" && first) return { view: "shared", token: first };
  if (view === "compare" && first && second) return { view, ids: [first, second] };
  return { view: "create", id: view === "r" && first ? first : null };
}

export const route = signal<Route>(readRoute(location.hash));

addEventListener("hashchange", () => (route.value = readRoute(location.hash)));

export function go(hash: string): void {
  location.hash = hash;
}

/** Like `go`, but the Back button does not return to the view before. */
export function replace(hash: string): void {
  history.replaceState(null, "", hash);
  route.value = readRoute(location.hash);
}
