import { tell } from "../model/trouble";
import { type VideoRequest, deleteRequest } from "../server/requests";
import { confirm } from "./Confirm";

/** Asks first: nobody can restore a video. Returns whether it is deleted. */
export async function deleteVideo(request: VideoRequest): Promise<boolean> {
  const [what, text] = request.output
    ? ["video", "This deletes the video and its share link. It cannot be undone."]
    : ["request", "This deletes the request from the history. It cannot be undone."];
  if (!(await confirm(`Delete this ${what}?`, text, "Delete"))) return false;
  return deleteRequest(request.id).then(
    () => true,
    (error: unknown) => {
      tell(error);
      return false;
    },
  );
}
