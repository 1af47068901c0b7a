import { useEffect } from "preact/hooks";
import { route } from "../model/route";
import { toast } from "../model/toast";
import { follow, trouble } from "../server/requests";
import { type Facts, session } from "../server/session";
import { CodeDialog } from "./Code";
import { Compare } from "./Compare";
import { Create } from "./Create";
import { DropZone } from "./DropZone";
import { Header } from "./Header";
import { Operate } from "./Operate";
import { SharedVideo, Visitor } from "./Shared";
import { SignIn } from "./SignIn";

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
  return (
    <>
      <Header facts={facts} />
      <View facts={facts} />
      <DropZone />
      <CodeDialog facts={facts} />
      <div class="toasts" role="status">
        {trouble.value && <p class="toast bad">{trouble.value} Trying again.</p>}
        {toast.value && <p class="toast">{toast.value}</p>}
      </div>
    </>
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
