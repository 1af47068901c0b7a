import { ago } from "../model/format";
import { tell } from "../model/trouble";
import { download } from "../server/http";
import { Button } from "./controls";
import { Table } from "./Table";

/** An entry of the audit log. The key is null when a key was refused. */
export interface Entry {
  readonly seq: number;
  readonly time: number;
  readonly key_id: string | null;
  readonly name: string | null;
  readonly address: string | null;
  readonly action: string;
  readonly target: string | null;
  readonly detail: Readonly<Record<string, unknown>> | null;
}

const COLUMNS = ["Time", "Key", "Address", "Action", "Target", "Details"];

/** Shows the latest entries of the audit log. */
export function AuditLog({ entries }: { entries: readonly Entry[] }) {
  const save = () => void download("api/operate/audit.csv", "audit.csv").catch(tell);
  return (
    <div class="usage">
      <Table title="Audit log" columns={COLUMNS} empty="There are no entries yet." count={entries.length}>
        {entries.map((entry) => (
          <tr key={entry.seq}>
            <td title={new Date(entry.time * 1000).toISOString()}>{ago(entry.time)}</td>
            <td>{entry.name ?? entry.key_id ?? "unknown"}</td>
            <td>{entry.address}</td>
            <td>
              <span class={`tag ${entry.action === "key_refused" ? "bad" : ""}`}>{entry.action.replaceAll("_", " ")}</span>
            </td>
            <td>{entry.target && <code>{entry.target}</code>}</td>
            <td class="wide">{entry.detail && describe(entry.detail)}</td>
          </tr>
        ))}
      </Table>
      <Button icon="download" onClick={save}>
        Download 31 days as CSV
      </Button>
    </div>
  );
}

function describe(detail: Readonly<Record<string, unknown>>): string {
  return Object.entries(detail)
    .map(([name, value]) => `${name.replaceAll("_", " ")} ${String(value)}`)
    .join(", ");
}
