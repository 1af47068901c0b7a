import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { addUrl, addFiles } from "../model/intake";
import { kindOf } from "../model/media";
import { dropFrame, frameUnder } from "./Track";

/** Accepts files that are dropped or pasted anywhere on the page. */
export function DropZone() {
  const depth = useSignal(0);
  useEffect(() => {
    const enter = (event: DragEvent) => {
      if (event.dataTransfer?.types.includes("Files")) depth.value += 1;
    };
    const leave = () => (depth.value = Math.max(0, depth.value - 1));
    const over = (event: DragEvent) => {
      event.preventDefault();
      dropFrame.value = depth.value > 0 ? frameUnder(event) : null;
    };
    const drop = (event: DragEvent) => {
      event.preventDefault();
      depth.value = 0;
      dropFrame.value = null;
      void take([...(event.dataTransfer?.files ?? [])], frameUnder(event));
    };
    const listeners = { dragenter: enter, dragleave: leave, dragover: over, drop, paste };
    for (const [name, listener] of Object.entries(listeners)) addEventListener(name, listener as EventListener);
    return () => {
      for (const [name, listener] of Object.entries(listeners)) removeEventListener(name, listener as EventListener);
    };
  }, [depth]);
  if (!depth.value) return null;
  const frame = dropFrame.value;
  return <div class="dropping">{frame === null ? "Drop pictures, clips or LoRAs, or a video made with Keyreel to restore its request" : `Drop to start at frame ${frame}`}</div>;
}

/** Outside the timeline, a video that Keyreel made stands for its request. */
async function take(files: File[], frame: number | null): Promise<void> {
  const [first] = files;
  const isRequest = frame === null && files.length === 1 && first && kindOf(first.type, first.name) === "video";
  if (isRequest && (await import("../model/restore").then(({ restoreFrom }) => restoreFrom(first)).catch(() => false))) return;
  await addFiles(files, frame);
}

function paste(event: ClipboardEvent): void {
  const files = [...(event.clipboardData?.files ?? [])];
  if (files.length) {
    event.preventDefault();
    void addFiles(files);
    return;
  }
  if (event.target instanceof HTMLInputElement || event.target instanceof HTMLTextAreaElement) return;
  const text = event.clipboardData?.getData("text/plain").trim() ?? "";
  const kind = /^https?:/.test(text) ? kindOf("", text.split(/[?#]/)[0] ?? "") : null;
  if (kind) addUrl(text, kind);
}
