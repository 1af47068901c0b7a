declare const process: { argv: string[] };

const [server, credentials] = process.argv.slice(2);

export const origin = server ?? "";
export const authorization = `Key ${credentials}`;
export const prompt = "a fox";
export const application = { owner: "fal-ai", alias: "ltx-video-lora", path: "multiconditioning" };
