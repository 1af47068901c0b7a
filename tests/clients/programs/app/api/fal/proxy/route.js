// fal's proxy for Next, in Node.
import { createRouteHandler } from "@fal-ai/server-proxy/nextjs";

export const { GET, POST, PUT } = createRouteHandler({
  allowUnauthorizedRequests: true,
  allowedEndpoints: ["fal-ai/**"],
});
