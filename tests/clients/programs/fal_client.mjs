// fal's JavaScript client, from @fal-ai/serverless-client 0.5 to @fal-ai/client 1.10. The arguments name the package and a model.
import { checkAll } from "./fal_calls.mjs";

const [name, model] = process.argv.slice(2);
const module = await import(name);
await checkAll(module.fal ?? module.default?.fal ?? module.default ?? module, model);
