// Loaded before a Node program (`--import`): redirects its calls of `fetch` from fal's hosts to the Keyreel server.
const server = process.env.KEYREEL_SERVER.replace(/\/$/, "");
const prefixes = JSON.parse(process.env.KEYREEL_FAL_HOSTS);
const originalFetch = globalThis.fetch;

globalThis.fetch = function fetch(input, options) {
  const url = new URL(input instanceof Request ? input.url : input);
  const prefix = prefixes[url.hostname];
  if (prefix === undefined) return originalFetch(input, options);
  const target = server + prefix + url.pathname + url.search;
  return originalFetch(input instanceof Request ? new Request(target, input) : target, options);
};
