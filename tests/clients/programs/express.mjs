// fal's proxy for Express, and fal's client before it. Only the proxy has the key.
import { createFalClient } from "@fal-ai/client";
import { createHandler } from "@fal-ai/server-proxy/express";
import express from "express";
import { checkAll } from "./fal_calls.mjs";

const app = express();
app.use(express.json());
app.all("/api/fal/proxy", createHandler({ allowUnauthorizedRequests: true, allowedEndpoints: ["fal-ai/**"] }));
const server = app.listen(0, "127.0.0.1", async () => {
  const url = `http://127.0.0.1:${server.address().port}/api/fal/proxy`;
  await checkAll(createFalClient({ credentials: "", proxyUrl: { url, when: "always" } }));
  process.exit();
});
