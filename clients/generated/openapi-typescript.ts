// Makes a video with the types of openapi-typescript, once for each document: node openapi-typescript.js SERVER KEY
import createClient from "openapi-fetch";
import { application, authorization, origin, prompt } from "./arguments";
import type { paths as OwnPaths } from "./generated/own-paths";
import type { paths as QueuePaths } from "./generated/queue-paths";

async function byQueueDocument(): Promise<string | undefined> {
  const client = createClient<QueuePaths>({ baseUrl: `${origin}/queue`, headers: { Authorization: authorization } });
  const submitted = await client.POST("/fal-ai/ltx-video-lora/multiconditioning", { body: { prompt } });
  if (!submitted.data) throw new Error(submitted.response.statusText);
  const params = { path: { request_id: submitted.data.request_id } };
  for (;;) {
    const { data, error } = await client.GET(
      "/fal-ai/ltx-video-lora/multiconditioning/requests/{request_id}/status",
      { params: { ...params, query: { logs: 1 } } },
    );
    if (error) throw new Error(JSON.stringify(error));
    if (data.status === "COMPLETED") {
      console.log(data.logs?.map((line) => line.message).join("; "));
      break;
    }
  }
  const { data } = await client.GET("/fal-ai/ltx-video-lora/multiconditioning/requests/{request_id}", { params });
  return data?.video.url;
}

async function byOwnDocument(): Promise<unknown> {
  const client = createClient<OwnPaths>({ baseUrl: origin, headers: { Authorization: authorization } });
  const submitted = await client.POST("/{owner}/{alias}/{path}", { params: { path: application }, body: { prompt } });
  if (!submitted.data) throw new Error(submitted.response.statusText);
  const params = { path: { ...application, request_id: submitted.data.request_id } };
  for (;;) {
    const { data, error } = await client.GET("/{owner}/{alias}/{path}/requests/{request_id}/status", { params });
    if (error) throw new Error(JSON.stringify(error));
    if (data.status === "COMPLETED") break;
  }
  const { data } = await client.GET("/{owner}/{alias}/{path}/requests/{request_id}", { params });
  return (data?.video as { url?: string }).url;
}

async function main(): Promise<void> {
  console.log(await byQueueDocument());
  console.log(await byOwnDocument());
}

void main();
