import { useEffect } from "preact/hooks";
import { coded } from "../model/code";
import { followEnds } from "../model/notices";
import { route } from "../model/route";
import { type Toast, dismiss, toasts } from "../model/toast";
import { follow, trouble } from "../server/requests";
import { type Facts, session } from "../server/session";
import { ConfirmDialog } from "./Confirm";
import { Button } from "./controls";
import { Create } from "./Create";
import { DropZone } from "./DropZone";
import { Header } from "./Header";
import { lazy } from "./lazy";
import { SignIn } from "./SignIn";

const OPENING = <main class="opening" aria-busy="true" aria-label="Loading" />;
const Operate = lazy(() => import("./Operate").then((found) => found.Operate), OPENING);
const Compare = lazy(() => import("./Compare").then((found) => found.Compare), OPENING);
const SharedVideo = lazy(() => import("./Shared").then((found) => found.SharedVideo), OPENING);
const Visitor = lazy(() => import("./Shared").then((found) => found.Visitor), OPENING);
const CodeDialog = lazy(() => import("./Code").then((found) => found.CodeDialog));

export function App() {
  const current = session.value;
  switch (current.state) {
    case "opening":
      return OPENING;
    case "closed":
      return route.value.view === "shared" ? <Visitor token={route.value.token} /> : <SignIn reason={current.reason} />;
    case "open":
      return <Playground facts={current.facts} />;
  }
}

function Playground({ facts }: { facts: Facts }) {
  useEffect(() => follow(), []);
  useEffect(() => followEnds(), []);
  return (
    <>
      <a class="button skip" href="#main" onClick={skip}>
        Skip to the content
      </a>
      <Header facts={facts} />
      <View facts={facts} />
      <DropZone />
      {coded.value && <CodeDialog facts={facts} />}
      <ConfirmDialog />
      <div class="toasts" role="status">
        {trouble.value && <p class="toast bad">{trouble.value} Trying again.</p>}
        {toasts.value.map((toast) => (
          <Message key={toast.id} toast={toast} />
        ))}
      </div>
    </>
  );
}

/** A link to the place itself would select a view. */
function skip(event: Event): void {
  event.preventDefault();
  const main = document.querySelector("main");
  main?.setAttribute("tabindex", "-1");
  main?.focus();
}

function Message({ toast: { id, text, action } }: { toast: Toast }) {
  const run = () => {
    dismiss(id);
    action?.run();
  };
  return (
    <p class="toast">
      {text}
      {action && (
        <Button kind="quiet" onClick={run}>
          {action.label}
        </Button>
      )}
    </p>
  );
}

function View({ facts }: { facts: Facts }) {
  const current = route.value;
  switch (current.view) {
    case "operate":
      return <Operate facts={facts} />;
    case "compare":
      return <Compare ids={current.ids} />;
    case "shared":
      return <SharedVideo token={current.token} />;
    case "create":
      return <Create facts={facts} id={current.id} />;
  }
}
