import { useSignal } from "@preact/signals";
import { tell } from "../model/trouble";
import { copy } from "../model/copying";
import { ago } from "../model/format";
import { describeQuotas, LIMIT_NAMES, type Limits, NO_LIMITS, type Quotas } from "../model/limits";
import { describeEnd, describeScopes, type Scope, SCOPE_NAMES, USER_SCOPES } from "../model/scopes";
import { call } from "../server/http";
import { confirm } from "./Confirm";
import { Button, Field, NumberInput, Switch } from "./controls";
import { Table } from "./Table";

export interface Key extends Limits {
  readonly id: string;
  readonly name: string;
  readonly scopes: readonly Scope[];
  readonly created: number;
  readonly revoked: number | null;
  readonly expires_at: number | null;
}

interface KeysProps {
  readonly keys: readonly Key[];
  readonly quotas: Readonly<Record<string, Quotas>>;
  readonly own: string;
  readonly changed: () => Promise<void>;
}

export function Keys({ keys, quotas, own, changed }: KeysProps) {
  const revoke = async (id: string) => {
    if (!(await confirm("Revoke this key?", "Programs and people can no longer use it, and its unfinished requests are cancelled.", "Revoke"))) return;
    await call("DELETE", `keys/${id}`).then(changed, tell);
  };
  return (
    <div class="keys">
      <Table title="Keys" columns={["Name", "ID", "Role", "Limits", "Created", "Ends", ""]} empty="There are no keys." count={keys.length}>
        {keys.map((key) => (
          <tr key={key.id} class={hasEnded(key) ? "over" : ""}>
            <td>{key.name}</td>
            <td>
              <code>{key.id}</code>
            </td>
            <td>{describeScopes(key.scopes)}</td>
            <td class="wide"><LimitsOf quotas={quotas[key.id]} /></td>
            <td>{ago(key.created)}</td>
            <td>{describeEnd(key)}</td>
            <td>
              {key.id === own ? "yours" : !key.revoked && <Button kind="danger" onClick={() => revoke(key.id)}>Revoke</Button>}
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

function hasEnded(key: Key): boolean {
  return ["revoked", "expired"].includes(describeEnd(key));
}

function NewKey({ changed }: { changed: () => Promise<void> }) {
  const name = useSignal("");
  const scopes = useSignal<readonly Scope[]>(USER_SCOPES);
  const lastDay = useSignal("");
  const limits = useSignal<Limits>(NO_LIMITS);
  const made = useSignal<string | null>(null);
  const allow = (scope: Scope, allowed: boolean) => {
    scopes.value = [...scopes.value.filter((each) => each !== scope), ...(allowed ? [scope] : [])];
  };
  const create = async (event: Event) => {
    event.preventDefault();
    try {
      const wanted = { name: name.value, scopes: scopes.value, expires_at: endOf(lastDay.value), ...limits.value };
      const answer = await call("POST", "keys", wanted);
      const key = (await answer.json()) as { id: string; secret: string };
      made.value = `${key.id}:${key.secret}`;
      name.value = "";
      scopes.value = USER_SCOPES;
      lastDay.value = "";
      limits.value = NO_LIMITS;
      await changed();
    } catch (error) {
      tell(error);
    }
  };
  return (
    <form class="card new-key" onSubmit={create}>
      <Field label="Name of the new key">
        {({ id }) => <input id={id} type="text" required placeholder="What the key is for" value={name.value} onInput={(event) => (name.value = event.currentTarget.value)} />}
      </Field>
      {(Object.keys(LIMIT_NAMES) as (keyof Limits)[]).map((name) => (
        <Field key={name} label={LIMIT_NAMES[name]}>
          {({ id, describedBy }) => (
            <NumberInput {...{ id, describedBy }} min={1} value={limits.value[name]} placeholder="default" onChange={(chosen) => (limits.value = { ...limits.value, [name]: chosen })} />
          )}
        </Field>
      ))}
      <Field label="Last day (optional)">
        {({ id }) => <input id={id} type="date" value={lastDay.value} onInput={(event) => (lastDay.value = event.currentTarget.value)} />}
      </Field>
      {(Object.keys(SCOPE_NAMES) as Scope[]).map((scope) => (
        <Switch key={scope} label={SCOPE_NAMES[scope]} checked={scopes.value.includes(scope)} onChange={(checked) => allow(scope, checked)} />
      ))}
      <Button submits icon="add" disabled={!name.value.trim() || !scopes.value.length}>
        Create key
      </Button>
      {made.value && (
        <p class="secret" role="status">
          The key is shown only once: <code>{made.value}</code>
          <Button icon="copy" onClick={() => copy(made.value ?? "")}>
            Copy
          </Button>
        </p>
      )}
    </form>
  );
}

/** Returns the end of a day in UTC, in seconds since 1970. */
function endOf(day: string): number | null {
  return day ? Date.parse(day) / 1000 + 86_400 : null;
}
