/** Asks the server again and again, less and less often while it does not answer. */

/** Milliseconds. */
const LONGEST_PAUSE = 30_000;

export interface Poller {
  readonly now: () => void;
  readonly stop: () => void;
}

/**
 * Asks at once, after each pause, and whenever the page is shown or the connection returns.
 *
 * @param ask tells whether the server answered
 * @param pause milliseconds to the next question, while the server answers
 */
export function keepAsking(ask: () => Promise<boolean>, pause: () => number): Poller {
  const over = new AbortController();
  const isOver = () => over.signal.aborted;
  let timer = 0;
  let failures = 0;
  let isAsking = false;
  const questions = { asked: 0, answered: 0 };
  const run = async () => {
    questions.asked += 1;
    if (isAsking || isOver()) return;
    clearTimeout(timer);
    isAsking = true;
    while (questions.answered < questions.asked) {
      questions.answered = questions.asked;
      failures = (await ask()) ? 0 : failures + 1;
    }
    isAsking = false;
    if (!isOver()) timer = window.setTimeout(now, backedOff(pause(), failures));
  };
  const now = () => void run();
  document.addEventListener("visibilitychange", now, over);
  addEventListener("online", now, over);
  now();
  const stop = () => {
    over.abort();
    clearTimeout(timer);
  };
  return { now, stop };
}

/** Twice as long after each failure. */
export function backedOff(pause: number, failures: number): number {
  return Math.min(pause * 2 ** failures, Math.max(pause, LONGEST_PAUSE));
}
