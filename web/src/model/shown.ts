/** The shape in which a request's preview and video are shown. */

import type { VideoRequest } from "../server/requests";
import { ratioOf } from "./canvas";
import { sizes } from "./sizes";

/** Width by height: as the preview or the video has it, else as the request asks for it, else the usual one. */
export function shownRatio({ id, input }: VideoRequest): number {
  const known = sizes.value.get(id);
  const aspect = input.aspect_ratio;
  const [width, height] = known ? [known.width, known.height] : ratioOf(typeof aspect === "string" && aspect.includes(":") ? aspect : "16:9");
  return width / height;
}
