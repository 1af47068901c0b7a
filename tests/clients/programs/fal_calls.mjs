// Each call of fal's JavaScript client, in the form that all versions understand.
import { check, expect, lacks } from "./report.mjs";

const input = { prompt: "a fox", image_url: "data:image/png;base64,YSBwaWN0dXJl" };

const hasLogs = (update) => update.logs.some((line) => line.message === "Decoding");
// Version 1 wraps the output.
const outputOf = (result) => result.data ?? result;

export async function checkAll(fal, model = "fal-ai/ltx-video-lora/image-to-video") {
  const submit = async (prompt) => (await fal.queue.submit(model, { input: { ...input, prompt } })).request_id;

  async function completed(requestId) {
    let status;
    do status = await fal.queue.status(model, { requestId, logs: true });
    while (status.status !== "COMPLETED");
    return status;
  }

  let requestId, video;
  await check("submit", async () => expect((requestId = await submit("a fox")), requestId));
  await check("status", async () => {
    const status = await completed(requestId);
    expect(hasLogs(status), status);
  });
  await check("result", async () => {
    const output = outputOf(await fal.queue.result(model, { requestId }));
    expect((video = output.video.url), output);
  });
  await check("subscribe", async () => {
    const updates = [];
    const onQueueUpdate = (update) => updates.push(update);
    const result = await fal.subscribe(model, { input, logs: true, pollInterval: 25, onQueueUpdate });
    expect(outputOf(result).video && hasLogs(updates.at(-1)), [result, updates]);
  });
  await check("upload", async () => {
    const url = await fal.storage.upload(new File(["a clip"], "clip.mp4", { type: "video/mp4" }));
    const answer = await fetch(url);
    expect((await answer.text()) === "a clip" && answer.headers.get("content-type") === "video/mp4", url);
  });
  await check("file input", async () => {
    const image_url = new Blob(["a picture"], { type: "image/png" });
    await fal.subscribe(model, { input: { prompt: "a file", image_url }, pollInterval: 25 });
  });
  await check("download", async () => {
    const text = await (await fetch(video)).text();
    expect(text === "the video", text);
  });
  // The last, because nothing runs behind a request that cannot be cancelled.
  if (fal.queue.cancel) {
    await check("cancel", async () => {
      const held = await submit("hold");
      await fal.queue.cancel(model, { requestId: held });
      const status = await completed(held);
      expect(status.error_type === "client_cancelled", status);
    });
  } else lacks("cancel");
}
