/** The steps of the user that can be undone and redone. */

const MAX_STEPS = 200;
/** Milliseconds. Changes of one control that follow each other more quickly are one step. */
const PAUSE = 1000;

export interface History<T> {
  readonly past: readonly T[];
  readonly present: T;
  readonly future: readonly T[];
  /** What the last step changed, and when; null if the next change is a step of its own in any case. */
  readonly last: { readonly control: string; readonly at: number } | null;
}

export function begin<T>(present: T): History<T> {
  return { past: [], present, future: [], last: null };
}

/** Makes `next` the present. `control` names the control that the user changes; null if the change is a whole step. */
export function record<T>(history: History<T>, next: T, control: string | null, now: number): History<T> {
  const { past, present, last } = history;
  const continues = control !== null && last?.control === control && now - last.at < PAUSE;
  const steps = continues ? past : [...past, present].slice(-MAX_STEPS);
  return { past: steps, present: next, future: [], last: control === null ? null : { control, at: now } };
}

export function undone<T>({ past, present, future }: History<T>): History<T> | null {
  const previous = past.at(-1);
  return previous === undefined ? null : { past: past.slice(0, -1), present: previous, future: [present, ...future], last: null };
}

export function redone<T>({ past, present, future }: History<T>): History<T> | null {
  const [next, ...others] = future;
  return next === undefined ? null : { past: [...past, present], present: next, future: others, last: null };
}
