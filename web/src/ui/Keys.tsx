import { useSignal } from "@preact/signals";
import { ago } from "../model/format";
import { describeQuotas, LIMIT_NAMES, type Limits, NO_LIMITS, type Quotas } from "../model/limits";
import { say } from "../model/toast";
import { call } from "../server/http";
import { confirm } from "./Confirm";
import { Button, Field, NumberInput, Switch } from "./controls";
import { Table } from "./Table";

export interface Key extends Limits {
  readonly id: string;
  readonly name: string;
  readonly admin: boolean;
  readonly created: number;
  readonly revoked: number | null;
}

interface KeysProps {
  readonly keys: readonly Key[];
  readonly quotas: Readonly<Record<string, Quotas>>;
  readonly own: string;
  readonly changed: () => Promise<void>;
}

export function Keys({ keys, quotas, own, changed }: KeysProps) {
  const revoke = async (id: string) => {
    if (!(await confirm("Revoke this key?", "Programs and people who use it are refused from now on.", "Revoke"))) return;
    await call("DELETE", `keys/${id}`).then(changed, (error: unknown) => say((error as Error).message));
  };
  return (
    <div class="keys">
      <Table title="Keys" columns={["Name", "ID", "Role", "Limits", "Created", ""]} empty="There are no keys." count={keys.length}>
        {keys.map((key) => (
          <tr key={key.id} class={key.revoked ? "over" : ""}>
            <td>{key.name}</td>
            <td>
              <code>{key.id}</code>
            </td>
            <td>{key.admin ? "administrator" : "user"}</td>
            <td><LimitsOf quotas={quotas[key.id]} /></td>
            <td>{ago(key.created)}</td>
            <td>
              {key.revoked ? "revoked" : key.id === own ? "yours" : <Button kind="danger" onClick={() => revoke(key.id)}>Revoke</Button>}
            </td>
          </tr>
        ))}
      </Table>
      <NewKey changed={changed} />
    </div>
  );
}

/** Revoked keys have no quotas. */
function LimitsOf({ quotas }: { quotas: Quotas | undefined }) {
  return <>{quotas && describeQuotas(quotas)}</>;
}

function NewKey({ changed }: { changed: () => Promise<void> }) {
  const name = useSignal("");
  const admin = useSignal(false);
  const limits = useSignal<Limits>(NO_LIMITS);
  const made = useSignal<string | null>(null);
  const create = async (event: Event) => {
    event.preventDefault();
    try {
      const answer = await call("POST", "keys", { name: name.value, admin: admin.value, ...limits.value });
      const key = (await answer.json()) as { id: string; secret: string };
      made.value = `${key.id}:${key.secret}`;
      name.value = "";
      limits.value = NO_LIMITS;
      await changed();
    } catch (error) {
      say((error as Error).message);
    }
  };
  return (
    <form class="card new-key" onSubmit={create}>
      <Field label="Name of a new key">
        {({ id }) => <input id={id} type="text" required placeholder="What the key is for" value={name.value} onInput={(event) => (name.value = event.currentTarget.value)} />}
      </Field>
      {(Object.keys(LIMIT_NAMES) as (keyof Limits)[]).map((name) => (
        <Field key={name} label={LIMIT_NAMES[name]}>
          {({ id, describedBy }) => (
            <NumberInput {...{ id, describedBy }} min={1} value={limits.value[name]} placeholder="default" onChange={(chosen) => (limits.value = { ...limits.value, [name]: chosen })} />
          )}
        </Field>
      ))}
      <Switch label="Administrator" checked={admin.value} onChange={(checked) => (admin.value = checked)} />
      <Button submits icon="add" disabled={!name.value.trim()}>
        Make a key
      </Button>
      {made.value && (
        <p class="secret" role="status">
          The key is shown only once: <code>{made.value}</code>
        </p>
      )}
    </form>
  );
}
