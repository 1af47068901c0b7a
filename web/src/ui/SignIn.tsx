import { useSignal } from "@preact/signals";
import { explain } from "../model/trouble";
import { signIn } from "../server/session";
import { Button, Field } from "./controls";
import { Mark } from "./icons";

export function SignIn({ reason }: { reason: string | null }) {
  const key = useSignal("");
  const problem = useSignal(reason);
  const submit = (event: Event) => {
    event.preventDefault();
    signIn(key.value).catch((error: unknown) => (problem.value = explain(error)));
  };
  return (
    <main class="sign-in">
      <form class="card" onSubmit={submit}>
        <h1>
          <Mark /> Keyreel
        </h1>
        <Field label="Your key" problem={problem.value}>
          {({ id, describedBy }) => (
            <input
              id={id}
              type="password"
              autocomplete="current-password"
              placeholder="id:secret"
              value={key.value}
              aria-describedby={describedBy}
              onInput={(event) => (key.value = event.currentTarget.value)}
            />
          )}
        </Field>
        <Button kind="primary" submits disabled={!key.value.trim()}>
          Open the playground
        </Button>
        <p class="hint">
          <code>keyreel serve</code> prints a key when it first starts. <code>keyreel keys create NAME</code> creates another.
        </p>
      </form>
    </main>
  );
}
