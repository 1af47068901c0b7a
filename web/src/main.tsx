import "@fontsource-variable/geist/wght.css";
import { render } from "preact";
import "./style/base.css";
import "./style/controls.css";
import "./style/create.css";
import "./style/timeline.css";
import "./style/views.css";
import { keepDraft } from "./model/keeping";
import { openSession, session } from "./server/session";
import { App } from "./ui/App";
import { showTheme } from "./ui/Header";

showTheme();
let stopKeeping: (() => void) | null = null;
session.subscribe((current) => {
  stopKeeping?.();
  stopKeeping = current.state === "open" ? keepDraft(current.facts) : null;
});
void openSession();
const root = document.getElementById("app");
if (root) render(<App />, root);
