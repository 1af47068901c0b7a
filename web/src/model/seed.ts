/** Seeds: whole numbers of 64 bits, of which JavaScript holds only those up to 2^53 exactly. */

import type { Seed } from "../server/requests";

const LIMIT = 2n ** 63n;

/** The seed that a text stands for; null if it is not a whole number that the server accepts. */
export function parseSeed(text: string): Seed | null {
  const digits = text.trim();
  if (!/^-?\d{1,19}$/.test(digits)) return null;
  const value = BigInt(digits);
  return value >= -LIMIT && value < LIMIT ? seedOf(value) : null;
}

/** The seeds of `count` videos: the given one and those after it, or nulls, for which the server draws seeds. */
export function seedsFrom(first: Seed | null, count: number): (Seed | null)[] {
  return Array.from({ length: count }, (_, index) => (first === null ? null : seedOf(BigInt.asIntN(64, BigInt(first) + BigInt(index)))));
}

function seedOf(value: bigint): Seed {
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : String(value);
}
