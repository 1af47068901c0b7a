// fal's proxy for Next, in the edge runtime.
export { GET, POST, PUT } from "../proxy/route.js";

export const runtime = "edge";
