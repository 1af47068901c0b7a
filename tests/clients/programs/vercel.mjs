// Vercel's AI SDK: it makes a video and downloads it. It reads FAL_API_KEY.
import { createFal } from "@ai-sdk/fal";
import { experimental_generateVideo as generateVideo } from "ai";
import { check, expect, lacks } from "./report.mjs";

const fal = createFal({ apiKey: process.env.FAL_KEY });

async function make(model, prompt) {
  const { videos } = await generateVideo({ model: fal.video(model), prompt, maxRetries: 0 });
  return Buffer.from(videos[0].uint8Array).toString();
}

let video;
lacks("submit", "status", "result", "cancel", "upload");
await check("subscribe", async () => {
  video = await make("fal-ai/ltx-video-lora", "a fox");
});
await check("download", async () => expect(video === "the video", video));
await check("file input", async () => {
  await make("fal-ai/ltx-video-lora/image-to-video", { text: "a file", image: new TextEncoder().encode("a picture") });
});
