import { signal } from "@preact/signals";

/** The first of two videos to compare, while the user chooses the second. */
export const comparing = signal<string | null>(null);
