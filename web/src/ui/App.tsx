import { useSignal } from "@preact/signals";
import type { ComponentType } from "preact";
import { useEffect } from "preact/hooks";
import { followEnds } from "../model/notices";
import { route } from "../model/route";
import { type Toast, dismiss, say, toasts } from "../model/toast";
import { follow, trouble } from "../server/requests";
import { type Facts, session } from "../server/session";
import { CodeDialog } from "./Code";
import { ConfirmDialog } from "./Confirm";
import { Button } from "./controls";
import { Create } from "./Create";
import { DropZone } from "./DropZone";
import { Header } from "./Header";
import { SharedVideo, Visitor } from "./Shared";
import { SignIn } from "./SignIn";

const Operate = lazy(() => import("./Operate").then((found) => found.Operate));
const Compare = lazy(() => import("./Compare").then((found) => found.Compare));

/** A view that is loaded when it is first opened. */
function lazy<P extends object>(load: () => Promise<ComponentType<P>>): ComponentType<P> {
  return (props: P) => {
    const found = useSignal<{ View: ComponentType<P> } | null>(null);
    useEffect(() => void load().then((View) => (found.value = { View }), () => say("This view could not be loaded. Reload the page.")), []);
    const View = found.value?.View;
    return View ? <View {...props} /> : <main class="opening" aria-busy="true" aria-label="Loading" />;
  };
}

export function App() {
  const current = session.value;
  switch (current.state) {
    case "opening":
      return <main class="opening" aria-busy="true" aria-label="Loading" />;
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
      <Header facts={facts} />
      <View facts={facts} />
      <DropZone />
      <CodeDialog facts={facts} />
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
