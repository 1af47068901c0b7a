// A program that knows only fal.ai and reads only FAL_KEY. Run it with `keyreel wrap -- node app.mjs`.
import { fal } from "@fal-ai/client";

const clip = await fal.storage.upload(new File(["a clip"], "clip.mp4", { type: "video/mp4" }));
const image_url = new Blob(["a picture"], { type: "image/png" });
const lines = [];
const { data, requestId } = await fal.subscribe("fal-ai/ltx-video-lora/multiconditioning", {
  input: { prompt: "a fox", seed: 3, images: [{ image_url }], videos: [{ video_url: clip }] },
  mode: "streaming",
  logs: true,
  // Each update holds the whole log so far.
  onQueueUpdate: (update) => lines.splice(0, lines.length, ...(update.logs ?? []).map((line) => line.message)),
});
console.log(JSON.stringify({ data, requestId, lines, clip: await (await fetch(clip)).text() }));
