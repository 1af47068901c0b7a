/** Tells of progress to a user who looks elsewhere: in the title of the tab and, if wanted, by a notification. */

import { effect, signal } from "@preact/signals";
import { type VideoRequest, promptOf, requests } from "../server/requests";
import { live, percent, running } from "./queue";
import { go } from "./route";
import { say } from "./toast";

const STORED = "keyreel.notify";

export const wantsNotice = signal(localStorage.getItem(STORED) === "yes");

/** Browsers allow notifications only over HTTPS and on the machine itself. */
export function canNotify(): boolean {
  return "Notification" in window && isSecureContext;
}

export async function toggleNotice(): Promise<void> {
  const isAllowed = wantsNotice.value || (await Notification.requestPermission()) === "granted";
  if (!isAllowed) {
    say("This browser blocks notifications from this page. Allow them in the browser's settings for this site.");
    return;
  }
  wantsNotice.value = !wantsNotice.value;
  localStorage.setItem(STORED, wantsNotice.value ? "yes" : "no");
}

/** Keeps the title current and tells of ended requests until the returned function is called. */
export function followEnds(): () => void {
  let before: readonly VideoRequest[] = [];
  const stopTitle = effect(() => void (document.title = title()));
  const stopNotices = effect(() => {
    const wasLive = new Set(before.map((each) => each.id));
    before = live.value;
    requests.value.filter((each) => each.state === "COMPLETED" && wasLive.has(each.id)).forEach(notify);
  });
  return () => {
    stopTitle();
    stopNotices();
    document.title = "Keyreel";
  };
}

function title(): string {
  const done = running.value && percent(running.value.progress);
  if (done !== null) return `${done} % - Keyreel`;
  return live.value.length ? `${running.value ? "Starting" : "Waiting"} - Keyreel` : "Keyreel";
}

function notify(request: VideoRequest): void {
  if (!wantsNotice.peek() || document.hasFocus() || request.error_type === "client_cancelled") return;
  try {
    const notice = new Notification(request.output ? "Your video is ready" : "A request failed", { body: promptOf(request), tag: request.id });
    notice.onclick = () => {
      window.focus();
      go(`#/r/${request.id}`);
    };
  } catch {
    wantsNotice.value = false; // phones allow them only to installed pages
  }
}
