// Makes a video with the clients of Hey API, once for each document: node hey-api.js SERVER KEY
import { application, authorization, origin, prompt } from "./arguments";
import * as own from "./generated/own";
import { client as ownClient } from "./generated/own/client.gen";
import * as queue from "./generated/queue";
import { client as queueClient } from "./generated/queue/client.gen";

async function byQueueDocument(): Promise<string> {
  queueClient.setConfig({ auth: authorization });
  const submitted = await queue.submit({ body: { prompt }, throwOnError: true });
  const path = { request_id: submitted.data.request_id };
  for (;;) {
    const { data } = await queue.readStatus({ path, query: { logs: 1 }, throwOnError: true });
    if (data.status === "COMPLETED") {
      console.log(data.logs?.map((line) => line.message).join("; "));
      break;
    }
  }
  return (await queue.readOutput({ path, throwOnError: true })).data.video.url;
}

async function byOwnDocument(): Promise<unknown> {
  ownClient.setConfig({ baseUrl: origin, auth: authorization });
  const submitted = await own.submitOwnerAliasPathPost({ path: application, body: { prompt }, throwOnError: true });
  const path = { ...application, request_id: submitted.data.request_id };
  for (;;) {
    const { data } = await own.readStatusOwnerAliasPathRequestsRequestIdStatusGet({ path, throwOnError: true });
    if (data.status === "COMPLETED") break;
  }
  const output = await own.readResultOwnerAliasPathRequestsRequestIdGet({ path, throwOnError: true });
  return (output.data.video as { url?: string }).url;
}

async function main(): Promise<void> {
  console.log(await byQueueDocument());
  console.log(await byOwnDocument());
}

void main();
