import { ago, seconds } from "../model/format";
import { tell } from "../model/trouble";
import { call } from "../server/http";
import { cancel, type VideoRequest, promptOf } from "../server/requests";
import { Button } from "./controls";
import type { Key } from "./Keys";
import { Table } from "./Table";

export interface Worker {
  readonly name: string;
  readonly device: string;
  readonly model: string;
  readonly ready: boolean;
}

export interface Call {
  readonly id: number;
  readonly request_id: string;
  readonly url: string;
  readonly state: string;
  readonly attempt: number;
  readonly error: string | null;
}

export function Workers({ workers }: { workers: readonly Worker[] }) {
  return (
    <Table title="Workers" columns={["Name", "Device", "Model", "State"]} empty="No worker is running. Requests wait in the queue." count={workers.length}>
      {workers.map((worker) => (
        <tr key={worker.name}>
          <td>{worker.name}</td>
          <td>{worker.device}</td>
          <td>{worker.model}</td>
          <td>
            <span class={`tag ${worker.ready ? "good" : "live"}`}>{worker.ready ? "ready" : "loading"}</span>
          </td>
        </tr>
      ))}
    </Table>
  );
}

interface RequestsProps {
  readonly requests: readonly VideoRequest[];
  readonly keys: readonly Key[];
  readonly changed: () => Promise<void>;
}

export function AllRequests({ requests, keys, changed }: RequestsProps) {
  const nameOf = (id: string) => keys.find((key) => key.id === id)?.name ?? id;
  const stop = (request: VideoRequest) => void cancel(request).then(changed, tell);
  return (
    <Table title="Requests of all keys" columns={["Prompt", "Key", "State", "Created", "Took", ""]} empty="There are no requests yet." count={requests.length}>
      {requests.map((request) => (
        <tr key={request.id}>
          <td class="wide">
            <a href={`#/r/${request.id}`}>{promptOf(request) || "No prompt"}</a>
          </td>
          <td>{nameOf(request.key_id)}</td>
          <td>
            <State request={request} />
          </td>
          <td>{ago(request.created)}</td>
          <td>{request.started && request.finished ? seconds(request.finished - request.started) : ""}</td>
          <td>{request.state !== "COMPLETED" && <Button onClick={() => stop(request)}>Cancel</Button>}</td>
        </tr>
      ))}
    </Table>
  );
}

function State({ request }: { request: VideoRequest }) {
  if (request.state === "IN_QUEUE") return <span class="tag">waiting{request.position === null ? "" : `, ${request.position} ahead`}</span>;
  if (request.state === "IN_PROGRESS") {
    const { progress } = request;
    return <span class="tag live">{progress ? `${progress.stage} ${progress.step}/${progress.steps}` : "starting"}</span>;
  }
  if (request.output) return <span class="tag good">done</span>;
  return (
    <span class="tag bad" title={request.error}>
      {request.error_type === "client_cancelled" ? "cancelled" : request.error_type}
    </span>
  );
}

export function Webhooks({ calls, changed }: { calls: readonly Call[]; changed: () => Promise<void> }) {
  const again = (id: number) =>
    void call("POST", `api/operate/webhooks/${id}/retry`).then(changed, tell);
  return (
    <Table title="Webhook calls" columns={["URL", "State", "Attempts", "Last error", ""]} empty="There are no webhook calls yet." count={calls.length}>
      {calls.map((each) => (
        <tr key={each.id}>
          <td class="wide">{each.url}</td>
          <td>
            <span class={`tag ${{ DELIVERED: "good", FAILED: "bad" }[each.state] ?? "live"}`}>{each.state.toLowerCase()}</span>
          </td>
          <td>{each.attempt}</td>
          <td class="wide">{each.error}</td>
          <td>{each.state !== "DELIVERED" && <Button onClick={() => again(each.id)}>Call again</Button>}</td>
        </tr>
      ))}
    </Table>
  );
}
