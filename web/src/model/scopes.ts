/** What a key may do. The names are the server's. */
export type Scope = "submit" | "read" | "upload" | "operate";

export const SCOPE_NAMES: Readonly<Record<Scope, string>> = {
  submit: "Submit requests",
  read: "Read requests and results",
  upload: "Upload files",
  operate: "Operate the server",
};

export const USER_SCOPES: readonly Scope[] = ["submit", "read", "upload"];

/** Names the role of a key with its usual scopes, else lists the scopes. */
export function describeScopes(scopes: readonly Scope[]): string {
  const hasUsers = USER_SCOPES.every((scope) => scopes.includes(scope));
  if (hasUsers && scopes.length === USER_SCOPES.length) return "user";
  return hasUsers && scopes.includes("operate") ? "administrator" : `only ${scopes.join(", ")}`;
}

interface Ending {
  readonly revoked: number | null;
  readonly expires_at: number | null;
}

/** Says when a key ends or why it has ended. Times are in seconds since 1970. */
export function describeEnd({ revoked, expires_at }: Ending, now = Date.now() / 1000): string {
  if (revoked !== null) return "revoked";
  if (expires_at === null) return "never";
  return expires_at <= now ? "expired" : new Date(expires_at * 1000).toISOString().slice(0, 10);
}
