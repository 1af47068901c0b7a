/** Returns a new id. `crypto.randomUUID` is missing where the page comes over plain HTTP from another machine. */
export function newId(): string {
  return crypto.getRandomValues(new Uint32Array(4)).join("-");
}
