/** Says what went wrong in words that help. */

import { messageOf } from "../server/http";
import { closeIfRevoked } from "../server/session";
import { say } from "./toast";

const AWAY = "The server does not answer. Check that it runs and that you are connected, then try again. Your draft is kept.";

/** The words of browsers, and of this page, for a lost connection. */
const LOST = /fetch|network|load failed|interrupted/i;

/** What happened and what to do. */
export function explain(error: unknown): string {
  const isLost = error instanceof TypeError && LOST.test(error.message);
  return isLost || (error as { status?: number }).status === 0 ? AWAY : messageOf(error);
}

/** Tells the user of an error. If it ends the session, the sign-in tells of it instead. */
export function tell(error: unknown, what = ""): void {
  if (!closeIfRevoked(error)) say(`${what}${explain(error)}`);
}
