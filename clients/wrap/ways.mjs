// One call to fal for each of Node's ways to make one. Prints the answers by the name of the way.
import { fork } from "node:child_process";
import { once } from "node:events";
import https from "node:https";
import tls from "node:tls";
import { Worker } from "node:worker_threads";
import got from "got";
import nodeFetch from "node-fetch";
import { request } from "undici";
import WebSocket from "ws";

const url = "https://queue.fal.run/a";

async function text(stream) {
  let body = "";
  for await (const chunk of stream) body += chunk;
  return body;
}

async function byTls() {
  const socket = tls.connect(443, "queue.fal.run", { servername: "queue.fal.run" });
  await once(socket, "secureConnect");
  socket.write("GET /a HTTP/1.1\r\nHost: queue.fal.run\r\nConnection: close\r\n\r\n");
  return (await text(socket)).split("\r\n\r\n")[1];
}

// Who resolves the name alone gives a number. The name is still in the handshake.
async function byNumber() {
  const socket = tls.connect({ host: "192.0.2.1", port: 443, servername: "queue.fal.run" });
  await once(socket, "secureConnect");
  socket.write("GET /a HTTP/1.1\r\nHost: queue.fal.run\r\nConnection: close\r\n\r\n");
  return (await text(socket)).split("\r\n\r\n")[1];
}

async function byHttps() {
  const [response] = await once(https.get(url), "response");
  return text(response);
}

// `keyreel wrap` closes it with a reason.
async function byWebSocket() {
  const [, reason] = await once(new WebSocket("wss://queue.fal.run/a"), "close");
  return JSON.stringify({ host: "queue.fal.run", reason: reason.toString() });
}

async function byWorker() {
  const source = `fetch(${JSON.stringify(url)}).then((r) => r.text())
    .then((t) => require("node:worker_threads").parentPort.postMessage(t))`;
  const [message] = await once(new Worker(source, { eval: true }), "message");
  return message;
}

async function byChild() {
  const child = fork(new URL("child.mjs", import.meta.url));
  const [message] = await once(child, "message");
  return message;
}

const ways = {
  fetch: async () => (await fetch(url)).text(),
  request: async () => (await fetch(new Request(url))).text(),
  undici: async () => (await request(url)).body.text(),
  got: async () => (await got(url)).body,
  nodeFetch: async () => (await nodeFetch(url)).text(),
  https: byHttps,
  tls: byTls,
  number: byNumber,
  ws: byWebSocket,
  worker: byWorker,
  child: byChild,
};
const answers = {};
for (const [name, call] of Object.entries(ways)) answers[name] = JSON.parse(await call());
console.log(JSON.stringify(answers));
process.exit();
