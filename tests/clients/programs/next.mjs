// fal's proxy for Next, and fal's client before it. The argument names the route. Only the proxy has the key.
import { execFileSync } from "node:child_process";
import { once } from "node:events";
import { createServer } from "node:http";
import { createFalClient } from "@fal-ai/client";
import next from "next";
import { checkAll } from "./fal_calls.mjs";

const dir = import.meta.dirname;
execFileSync("node", ["node_modules/next/dist/bin/next", "build"], { cwd: dir, stdio: ["ignore", 2, 2] });
const app = next({ dev: false, dir });
await app.prepare();
const server = createServer(app.getRequestHandler()).listen(0, "127.0.0.1");
await once(server, "listening");
const url = `http://127.0.0.1:${server.address().port}${process.argv[2]}`;
await checkAll(createFalClient({ credentials: "", proxyUrl: { url, when: "always" } }));
process.exit();
