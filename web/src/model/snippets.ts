/** Writes a request as code that runs without changes, if the environment variable FAL_KEY holds the key. */

import type { Input } from "../server/requests";

export interface Target {
  readonly baseUrl: string;
  readonly endpoint: string;
  /** The model that the server runs; null if no worker is running. */
  readonly model: string | null;
}

export const LANGUAGES = ["JavaScript", "Python", "curl", "keyreel"] as const;
export type Language = (typeof LANGUAGES)[number];

export const INSTRUCTIONS: Record<Language, string> = {
  JavaScript: "Save it as video.mjs and run npm install @fal-ai/client first",
  Python: "Save it as video.py and run pip install fal-client first",
  curl: "Run it in a shell",
  keyreel: "Run it in a shell, on any machine with Keyreel; it needs no server",
};

export function snippet(language: Language, input: Input, target: Target): string {
  switch (language) {
    case "JavaScript":
      return javascript(input, target);
    case "Python":
      return python(input, target);
    case "curl":
      return curl(input, target);
    case "keyreel":
      return command(input, target);
  }
}

function javascript(input: Input, { baseUrl, endpoint }: Target): string {
  return `import { fal } from "@fal-ai/client";

fal.config({
  credentials: process.env.FAL_KEY,
  proxyUrl: { url: "${baseUrl}/api/fal/proxy", when: "always" },
});

const { data } = await fal.subscribe("${endpoint}", {
  input: ${indent(json(input), 2)},
  logs: true,
  onQueueUpdate: (update) => console.error(update.status),
});
console.log(data.video.url);
`;
}

function python(input: Input, { baseUrl, endpoint }: Target): string {
  return `import fal_client
import fal_client.client

fal_client.client.QUEUE_URL_FORMAT = "${baseUrl}/queue/"
fal_client.client.RUN_URL_FORMAT = "${baseUrl}/run/"
fal_client.client.REST_URL = fal_client.client.CDN_URL = "${baseUrl}"

result = fal_client.subscribe(
    "${endpoint}",
    arguments=${indent(exact(literal(input)), 4)},
)
print(result["video"]["url"])
`;
}

function curl(input: Input, { baseUrl, endpoint }: Target): string {
  return `curl --fail-with-body "${baseUrl}/run/${endpoint}" \\
  -H "Authorization: Key $FAL_KEY" -H "Content-Type: application/json" \\
  -d ${quote(exact(json(input)))}
`;
}

function command(input: Input, { model }: Target): string {
  return `keyreel generate --out video.mp4 ${model ? `--model ${quote(model)} ` : ""}--request /dev/stdin <<'JSON'
${exact(json(input))}
JSON
`;
}

function json(value: unknown): string {
  return JSON.stringify(value, null, 2);
}

/** Writes a long seed as a number. Only JavaScript would round it: there its digits stay a string, which is accepted, too. */
function exact(text: string): string {
  return text.replace(/(?<!\\)"seed": "(-?\d+)"/, '"seed": $1');
}

/** A Python literal. It differs from JSON in None, True and False. */
function literal(value: unknown, depth = 0): string {
  const inner = "    ".repeat(depth + 1);
  const close = "    ".repeat(depth);
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (Array.isArray(value)) return block("[", "]", value.map((each) => literal(each, depth + 1)), inner, close);
  if (typeof value === "object") {
    const items = Object.entries(value).map(([key, each]) => `${JSON.stringify(key)}: ${literal(each, depth + 1)}`);
    return block("{", "}", items, inner, close);
  }
  return JSON.stringify(value);
}

function block(open: string, shut: string, items: string[], inner: string, close: string): string {
  return items.length ? `${open}\n${items.map((item) => `${inner}${item},\n`).join("")}${close}${shut}` : open + shut;
}

function indent(text: string, spaces: number): string {
  return text.replaceAll("\n", `\n${" ".repeat(spaces)}`);
}

function quote(text: string): string {
  return `'${text.replaceAll("'", String.raw`'\''`)}'`;
}
