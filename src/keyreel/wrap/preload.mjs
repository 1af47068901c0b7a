// Loaded before a Node program (`--import`): sends its calls to fal's hosts to the Keyreel server instead.
const server = process.env.KEYREEL_SERVER.replace(/\/$/, "");
const prefixes = { "queue.fal.run": "/queue", "fal.run": "/run", "rest.fal.ai": "", "v3.fal.media": "" };
const real = globalThis.fetch;

globalThis.fetch = function fetch(input, options) {
  const url = new URL(input instanceof Request ? input.url : input);
  const prefix = prefixes[url.hostname];
  if (prefix === undefined) return real(input, options);
  const target = server + prefix + url.pathname + url.search;
  return input instanceof Request ? real(new Request(target, input), options) : real(target, options);
};
