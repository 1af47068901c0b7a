import { tell } from "../model/trouble";
import { type VideoRequest, deleteRequest } from "../server/requests";
import { confirm } from "./Confirm";

/** Asks first: nobody can restore a video. Returns whether it is deleted. */
export async function deleteVideo(request: VideoRequest): Promise<boolean> {
  const [what, text] = request.output
    ? ["video", "The video and its share link will be gone for good."]
    : ["request", "It disappears from the history for good."];
  if (!(await confirm(`Delete this ${what}?`, text, "Delete"))) return false;
  return deleteRequest(request.id).then(
    () => true,
    (error: unknown) => {
      tell(error);
      return false;
    },
  );
}
