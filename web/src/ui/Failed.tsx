import { take } from "../model/draft";
import { go } from "../model/route";
import { forget, type Made, promptOf } from "../server/requests";
import { Button } from "./controls";

export function Failed({ request }: { request: Made }) {
  const isCancelled = request.error_type === "client_cancelled";
  const problems = typeof request.problems === "object" ? request.problems : [];
  return (
    <>
      <div class={`screen empty ${isCancelled ? "" : "failed"}`}>
        <h2>{isCancelled ? "Cancelled" : "No video came of it"}</h2>
        {problems.length ? (
          <ul class="problems">
            {problems.map((problem) => (
              <li key={problem.loc.join(".")}>
                <code>{problem.loc.slice(1).join(".") || "request"}</code> {problem.msg}
              </li>
            ))}
          </ul>
        ) : (
          !isCancelled && <p>{request.error}</p>
        )}
      </div>
      <p class="said">{promptOf(request)}</p>
      <div class="actions">
        <Button icon="edit" onClick={() => take(request.input, null)}>
          Edit this request
        </Button>
        <Button kind="danger" icon="trash" onClick={() => forget(request.id).then(() => go("#/"))}>
          Delete
        </Button>
      </div>
    </>
  );
}
