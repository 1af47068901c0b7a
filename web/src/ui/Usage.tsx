import { bytes, seconds } from "../model/format";
import { tell } from "../model/trouble";
import { totals, type Usage } from "../model/usage";
import { download } from "../server/http";
import { Button } from "./controls";
import type { Key } from "./Keys";
import { Table } from "./Table";

const COLUMNS = ["Key", "Completed", "Failed", "Cancelled", "Device time", "Added", "Stored now"];

/** Shows what each key has used in the last 31 days. */
export function UsageOfKeys({ usage, keys }: { usage: Usage; keys: readonly Key[] }) {
  const rows = totals(usage);
  const save = () => void download("keys/usage.csv", "usage.csv").catch(tell);
  const names = new Map(keys.map((key) => [key.id, key.name]));
  return (
    <div class="usage">
      <Table title="Usage in the last 31 days" columns={COLUMNS} empty="There is no usage yet." count={rows.length}>
        {rows.map((row) => (
          <tr key={row.key_id}>
            <td>{names.get(row.key_id) ?? row.key_id}</td>
            <td>{row.completed}</td>
            <td>{row.failed}</td>
            <td>{row.cancelled}</td>
            <td>{seconds(row.device_seconds)}</td>
            <td>{bytes(row.bytes)}</td>
            <td>{bytes(row.stored)}</td>
          </tr>
        ))}
      </Table>
      <Button icon="download" onClick={save}>
        Download daily usage as CSV
      </Button>
    </div>
  );
}
