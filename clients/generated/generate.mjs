// Writes clients for the documents queue.json and own.json, with openapi-typescript and with Hey API, to generated/.
import { createClient } from "@hey-api/openapi-ts";
import { mkdir, writeFile } from "node:fs/promises";
import openapiTS, { astToString } from "openapi-typescript";
import { pathToFileURL } from "node:url";

await mkdir("generated", { recursive: true });
for (const name of ["queue", "own"]) {
  // A field with a default may be left out.
  const types = await openapiTS(pathToFileURL(`${name}.json`), { defaultNonNullable: false });
  await writeFile(`generated/${name}-paths.ts`, astToString(types));
  await createClient({ input: `${name}.json`, output: `generated/${name}`, logs: { level: "warn", file: false } });
}
