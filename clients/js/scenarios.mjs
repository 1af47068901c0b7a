// Runs fal's own client against a Keyreel server: node scenarios.mjs WAY SCENARIO [ARGUMENT]
// KEYREEL_URL is the server's address, FAL_KEY holds a key. Each line of output is a JSON object.
import { createHash, webcrypto } from "node:crypto";
import { once } from "node:events";
import { createServer } from "node:http";

import { createFalClient } from "@fal-ai/client";

const ENDPOINT = "fal-ai/ltx-video-lora/multiconditioning";
const server = process.env.KEYREEL_URL;

const PREFIXES = {
  "https://queue.fal.run/": `${server}/queue/`,
  "https://fal.run/": `${server}/run/`,
  "https://rest.fal.ai/": `${server}/`,
};

function ours(url) {
  const host = Object.keys(PREFIXES).find((prefix) => url.startsWith(prefix));
  return host ? PREFIXES[host] + url.slice(host.length) : url;
}

const WAYS = {
  proxy: { proxyUrl: { url: `${server}/api/fal/proxy`, when: "always" } },
  middleware: { requestMiddleware: async (request) => ({ ...request, url: ours(request.url) }) },
  fetch: { fetch: (url, options) => fetch(ours(String(url)), options) },
};

const [way, scenario, argument] = process.argv.slice(2);
const fal = createFalClient({ credentials: process.env.FAL_KEY, ...WAYS[way] });

function print(line) {
  console.log(JSON.stringify(line));
}

async function subscribe(options) {
  const result = await fal.subscribe(ENDPOINT, {
    input: { prompt: "hold", seed: 5 },
    logs: true,
    onEnqueue: (id) => print({ enqueued: id }),
    onQueueUpdate: (update) => print({ update }),
    ...options,
  });
  print({ result });
}

async function submit(prompt) {
  const { request_id } = await fal.queue.submit(ENDPOINT, { input: { prompt } });
  return request_id;
}

const scenarios = {
  polling: () => subscribe({ pollInterval: 25 }),

  streaming: () => subscribe({ mode: "streaming" }),

  async queue() {
    const submitted = await fal.queue.submit(ENDPOINT, { input: { prompt: "a fox" }, priority: "low", hint: "warm" });
    print({ submitted });
    const requestId = submitted.request_id;
    const completed = await fal.queue.subscribeToStatus(ENDPOINT, { requestId, logs: true, pollInterval: 25 });
    print({ completed, status: await fal.queue.status(ENDPOINT, { requestId }) });
    print({ result: await fal.queue.result(ENDPOINT, { requestId }) });
  },

  async cancel() {
    const running = await submit("hold");
    const stream = await fal.queue.streamStatus(ENDPOINT, { requestId: running });
    for await (const { status } of stream) {
      if (status === "IN_PROGRESS") break;
    }
    const queued = await submit("hold");
    for (const requestId of [queued, running]) {
      await fal.queue.cancel(ENDPOINT, { requestId });
      const status = await fal.queue.subscribeToStatus(ENDPOINT, { requestId, pollInterval: 25 });
      const error = await fal.queue.result(ENDPOINT, { requestId }).catch(described);
      const again = await fal.queue.cancel(ENDPOINT, { requestId }).catch(described);
      print({ status, error, again });
    }
  },

  // Throws; the error is printed at the end of this file.
  timeout: () => subscribe({ timeout: 300, pollInterval: 25 }),

  // ARGUMENT: {"way": "run" or "subscribe", "inputs": [...], "endpoint": optional, default ENDPOINT}
  async outcomes() {
    const { way, inputs, endpoint = ENDPOINT } = JSON.parse(argument);
    for (const input of inputs) {
      const options = { input, pollInterval: 25 };
      await fal[way](endpoint, options).then(
        (result) => print({ result }),
        (error) => print({ error: described(error) }),
      );
    }
  },

  // ARGUMENT: [[endpoint, input], ...]. The clip "blob" stands for one that the client uploads.
  async endpoints() {
    const run = async ([endpoint, input]) => {
      if (input.video?.video_url === "blob") input.video.video_url = new Blob(["a clip"], { type: "video/mp4" });
      const { data } = await fal.subscribe(endpoint, { input, pollInterval: 25 });
      print({ endpoint, data });
    };
    await Promise.all(JSON.parse(argument).map(run));
  },

  async webhook() {
    const receiver = createServer().listen(0, "127.0.0.1");
    const called = once(receiver, "request");
    await once(receiver, "listening");
    const webhookUrl = `http://127.0.0.1:${receiver.address().port}/hook`;
    const { request_id } = await fal.queue.submit(ENDPOINT, { input: { prompt: "a fox", seed: 3 }, webhookUrl });
    const [request, response] = await called;
    const body = Buffer.concat(await request.toArray());
    response.end();
    receiver.close();
    print({ request_id, call: JSON.parse(body), verified: await verified(request.headers, body) });
  },

  // ARGUMENT: the prompt.
  async stream() {
    const stream = await fal.stream(ENDPOINT, { input: { prompt: argument, seed: 3 } });
    for await (const event of stream) print({ event });
    print({ result: await stream.done() });
  },

  async runByGet() {
    print({ result: await fal.run(ENDPOINT, { input: { prompt: "a fox", seed: 9 }, method: "get" }) });
  },

  async upload() {
    const url = await fal.storage.upload(new File(["a clip"], "clip.mp4", { type: "video/mp4" }));
    const answer = await fetch(url);
    print({ url, type: answer.headers.get("content-type"), text: await answer.text() });
  },

  async autoUpload() {
    const image_url = new Blob(["a picture"], { type: "image/png" });
    await fal.subscribe(ENDPOINT, { input: { prompt: "a fox", images: [{ image_url }] }, pollInterval: 25 });
  },

  async otherEndpoint() {
    await fal.run(argument, { input: {} });
  },
};

// Verifies a webhook as receivers in JavaScript do: with WebCrypto, trying each key.
async function verified(headers, body) {
  const names = ["x-fal-webhook-request-id", "x-fal-webhook-user-id", "x-fal-webhook-timestamp"];
  const digest = createHash("sha256").update(body).digest("hex");
  const message = Buffer.from([...names.map((name) => headers[name]), digest].join("\n"));
  const signature = Buffer.from(headers["x-fal-webhook-signature"], "hex");
  const { keys } = await (await fetch(`${server}/.well-known/jwks.json`)).json();
  return Promise.all(
    keys.map(async (jwk) => {
      const key = await webcrypto.subtle.importKey("jwk", jwk, "Ed25519", false, ["verify"]);
      return webcrypto.subtle.verify("Ed25519", key, signature, message);
    }),
  );
}

function described(error) {
  return {
    name: error.name,
    status: error.status,
    body: error.body,
    requestId: error.requestId,
    timeoutType: error.timeoutType,
    prompt: error.getFieldErrors?.("prompt"),
    message: error.message,
  };
}

await scenarios[scenario]().catch((error) => print({ error: described(error) }));
