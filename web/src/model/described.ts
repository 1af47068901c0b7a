/** What the page writes about the values of a request. */

import { labelOf, nameOf } from "./entries";

export type Given = Readonly<Record<string, unknown>>;

export function listOf(list: unknown): readonly Given[] {
  return Array.isArray(list) ? (list as Given[]) : [];
}

/** A setting. */
export function shown(value: unknown): string {
  if (value === undefined || value === null) return "server default";
  if (typeof value === "boolean") return value ? "on" : "off";
  return typeof value === "string" ? value : JSON.stringify(value);
}

export function nameOfLora({ path, weight_name }: Given): string {
  return labelOf(String(path)) ?? shown(weight_name ?? path);
}

export function placeOf({ start_frame_number, strength }: Given): string {
  return `Frame ${shown(start_frame_number ?? 0)}, strength ${shown(strength ?? 1)}`;
}

/** The pictures, clips or LoRAs of a request, in one line. */
export function shownList(list: unknown): string {
  const all = listOf(list).map((each) => {
    if (each.path !== undefined) return `${nameOfLora(each)} (scale ${shown(each.scale ?? 1)})`;
    return `${nameOf(String(each.image_url ?? each.video_url))} (${placeOf(each).toLowerCase()})`;
  });
  return all.join(", ") || "none";
}
