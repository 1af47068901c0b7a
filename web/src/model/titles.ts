/** What the page calls the fields of a request. */

const TITLES: Record<string, string> = {
  number_of_frames: "Frames",
  number_of_steps: "Steps",
  frame_rate: "Frames per second",
  enable_safety_checker: "Safety checker",
};

export function titleOf(name: string): string {
  const words = name.replaceAll("_", " ");
  return TITLES[name] ?? words.charAt(0).toUpperCase() + words.slice(1);
}
