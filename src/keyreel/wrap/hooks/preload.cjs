// Loaded before a Node program (`--require`): leads every connection to one of fal's hosts to the stand-in of `keyreel wrap`.
// All of Node's clients end in this one method: fetch, undici, http, https, http2, tls, and what is built on them.
"use strict";
const net = require("node:net");

const { port, domains } = JSON.parse(process.env.KEYREEL_WRAP);
const connect = net.Socket.prototype.connect;

function isFals(host) {
  const name = String(host ?? "").toLowerCase().replace(/\.$/, "");
  return domains.some((domain) => name === domain || name.endsWith(`.${domain}`));
}

// Node passes its own calls as one array [options, callback]; programs pass options, or port and host.
function optionsOf(args) {
  const [first, host] = Array.isArray(args[0]) ? args[0] : args;
  if (typeof first === "object" && first !== null) return first;
  return { port: first, host: typeof host === "string" ? host : undefined };
}

net.Socket.prototype.connect = function (...args) {
  const options = optionsOf(args);
  // Who resolves names alone connects to a number, but still names the host for TLS.
  const host = [options.host, options.servername].find(isFals);
  if (host === undefined) return connect.apply(this, args);
  if (Number(options.port) !== 443) {
    const text = `keyreel wrap: refused a connection to ${host}:${options.port}. Only HTTPS is led to Keyreel.`;
    console.error(text);
    process.nextTick(() => this.destroy(new Error(text)));
    return this;
  }
  const redirected = { ...options, host: "127.0.0.1", port, lookup: undefined };
  if (!Array.isArray(args[0])) {
    const callback = args.findLast((each) => typeof each === "function");
    return callback ? connect.call(this, redirected, callback) : connect.call(this, redirected);
  }
  args[0][0] = redirected;
  return connect.apply(this, args);
};
