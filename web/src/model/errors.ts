/** The problems of a rejected request. The page shows each one at its field until the user changes that field. */

import type { Input, Problem } from "../server/requests";

export interface Refusal {
  readonly input: Input;
  readonly problems: readonly Problem[];
}

/** Problems by the path of their field, such as `images.0.image_url`. The path `""` stands for the whole request. */
export function currentProblems(refusal: Refusal | null, draft: Input): Map<string, string> {
  const found = new Map<string, string>();
  for (const problem of refusal?.problems ?? []) {
    const path = problem.loc[0] === "body" ? problem.loc.slice(1) : problem.loc;
    const scope = path.slice(0, typeof path[1] === "number" ? 2 : 1);
    if (same(at(refusal?.input, scope), at(draft, scope))) found.set(path.join("."), problem.msg);
  }
  return found;
}

function at(value: unknown, path: readonly (string | number)[]): unknown {
  return path.reduce<unknown>((inner, step) => (inner as Record<string, unknown> | undefined)?.[step], value);
}

function same(one: unknown, other: unknown): boolean {
  return JSON.stringify(one) === JSON.stringify(other);
}
