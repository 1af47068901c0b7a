// fal's proxy for Hono, and fal's client before it. Only the proxy has the key.
import { createFalClient } from "@fal-ai/client";
import { createRouteHandler } from "@fal-ai/server-proxy/hono";
import { serve } from "@hono/node-server";
import { Hono } from "hono";
import { checkAll } from "./fal_calls.mjs";

const app = new Hono();
app.all("/api/fal/proxy", createRouteHandler({ allowUnauthorizedRequests: true, allowedEndpoints: ["fal-ai/**"] }));
serve({ fetch: app.fetch, hostname: "127.0.0.1", port: 0 }, async ({ port }) => {
  const url = `http://127.0.0.1:${port}/api/fal/proxy`;
  await checkAll(createFalClient({ credentials: "", proxyUrl: { url, when: "always" } }));
  process.exit();
});
