// A program's own preload: writes down every address that a Node process looks up or connects to.
const fs = require("node:fs");
const net = require("node:net");
const connect = net.Socket.prototype.connect;

net.Socket.prototype.connect = function (...args) {
  const [first, host] = Array.isArray(args[0]) ? args[0] : args;
  fs.appendFileSync(process.env.RECORD, `${first.path ? "pipe" : (first.host ?? host)}\n`);
  return connect.apply(this, args);
};
