import { showAsCode } from "../model/code";
import { editRequest } from "../model/entries";
import { go } from "../model/route";
import { titleOfPlace } from "../model/titles";
import { type VideoRequest, promptOf } from "../server/requests";
import { Button } from "./controls";
import { deleteVideo } from "./deletion";

export function Failed({ request }: { request: VideoRequest }) {
  const isCancelled = request.error_type === "client_cancelled";
  const problems = typeof request.problems === "object" ? request.problems : [];
  return (
    <>
      <div class={`screen empty ${isCancelled ? "" : "failed"}`}>
        <h2>{isCancelled ? "Cancelled" : "The request failed"}</h2>
        {problems.length ? (
          <ul class="problems">
            {problems.map((problem) => (
              <li key={problem.loc.join(".")}>
                <strong>{titleOfPlace(problem.loc)}:</strong> {problem.msg}
              </li>
            ))}
          </ul>
        ) : (
          !isCancelled && <p>{request.error}</p>
        )}
      </div>
      <p class="said">{promptOf(request)}</p>
      <div class="actions">
        <Button icon="edit" onClick={() => editRequest(request.input, null)}>
          Edit this request
        </Button>
        <Button icon="code" onClick={() => showAsCode(request.endpoint, request.input)}>
          Code
        </Button>
        <Button kind="danger" icon="trash" onClick={async () => (await deleteVideo(request)) && go("#/")}>
          Delete
        </Button>
      </div>
    </>
  );
}
