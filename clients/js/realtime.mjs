// A program that knows only fal.ai and opens a WebSocket. It prints the errors that fal's client reports.
import { fal } from "@fal-ai/client";

const connection = fal.realtime.connect("fal-ai/ltx-video-lora", {
  connectionKey: "a",
  onResult: (result) => console.log(JSON.stringify({ result })),
  onError: (error) => console.log(JSON.stringify({ message: error.message, status: error.status })),
});
connection.send({ prompt: "a fox" });
