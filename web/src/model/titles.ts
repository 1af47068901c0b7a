/** What the page calls the fields of a request. */

const TITLES: Record<string, string> = {
  number_of_frames: "Frames",
  number_of_steps: "Steps",
  frame_rate: "Frames per second",
  enable_safety_checker: "Safety checker",
  images: "Pictures",
  videos: "Clips",
  loras: "LoRAs",
};

const LISTS: Record<string, string> = { images: "Picture", videos: "Clip", loras: "LoRA" };

/** What the page calls the place of a problem, such as `body`, `images`, 0, `strength`. */
export function titleOfPlace(loc: readonly (string | number)[]): string {
  const [list, index, field] = loc.slice(1);
  if (list === undefined) return "Request";
  const item = LISTS[list];
  if (item === undefined || typeof index !== "number") return titleOf(String(list));
  const isFile = field === undefined || /_url$|^path$/.test(String(field));
  return `${item} ${index + 1}${isFile ? "" : `, ${titleOf(String(field)).toLowerCase()}`}`;
}

export function titleOf(name: string): string {
  const words = name.replaceAll("_", " ");
  return TITLES[name] ?? words.charAt(0).toUpperCase() + words.slice(1);
}
