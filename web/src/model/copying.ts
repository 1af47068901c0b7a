/** Copies text to the clipboard. */

import { say } from "./toast";

/** Says `done`, or what to do if the browser does not allow it. */
export async function copy(text: string, done = "Copied."): Promise<void> {
  // Over plain HTTP from another machine there is no `navigator.clipboard`.
  const isCopied = isSecureContext ? await navigator.clipboard.writeText(text).then(() => true, () => false) : copyByEvent(text);
  say(isCopied ? done : `This browser does not allow copying. Select and copy this: ${text}`);
}

function copyByEvent(text: string): boolean {
  const give = (event: ClipboardEvent) => {
    event.preventDefault();
    event.clipboardData?.setData("text/plain", text);
  };
  document.addEventListener("copy", give);
  // The only way that such pages have.
  // eslint-disable-next-line @typescript-eslint/no-deprecated
  const isCopied = document.execCommand("copy");
  document.removeEventListener("copy", give);
  return isCopied;
}
