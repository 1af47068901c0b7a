// Vercel's AI SDK makes a video with fal. It reads FAL_API_KEY.
import { createFal } from "@ai-sdk/fal";
import { experimental_generateVideo as generateVideo } from "ai";

const fal = createFal({ apiKey: process.env.FAL_KEY });
const { videos, video } = await generateVideo({ model: fal.video(process.argv[2]), prompt: "a fox", seed: 3, maxRetries: 0 });
const made = video ?? videos[0];
console.log(Buffer.from(made.uint8Array).toString());
