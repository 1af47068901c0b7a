// TanStack AI with its adapter for fal. It reads FAL_KEY.
import { generateVideo, getVideoJobStatus } from "@tanstack/ai";
import { falVideo } from "@tanstack/ai-fal";
import { check, expect, lacks } from "./report.mjs";

const adapter = falVideo("fal-ai/ltx-video-lora/image-to-video");
const picture = { type: "image", source: { type: "data", mimeType: "image/png", value: btoa("a picture") } };
const input = (text) => [{ type: "text", content: text }, picture];

async function made(jobId) {
  let job;
  do job = await getVideoJobStatus({ adapter, jobId });
  while (["pending", "processing"].includes(job.status));
  expect(job.status === "completed", job);
  return job;
}

let jobId, url;
lacks("cancel", "upload");
await check("submit", async () => {
  ({ jobId } = await generateVideo({ adapter, prompt: input("a fox") }));
  expect(jobId, jobId);
});
await check("status", async () => {
  ({ url } = await made(jobId));
});
await check("result", async () => expect(url, url));
await check("subscribe", async () => {
  const chunks = [];
  for await (const chunk of generateVideo({ adapter, prompt: input("a fox"), stream: true, pollingInterval: 25 })) chunks.push(chunk);
  expect(JSON.stringify(chunks).includes("/files/"), chunks);
});
await check("file input", async () => {
  const { jobId } = await generateVideo({ adapter, prompt: input("a file") });
  await made(jobId);
});
await check("download", async () => {
  const text = await (await fetch(url)).text();
  expect(text === "the video", text);
});
