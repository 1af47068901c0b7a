import { signal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { route } from "../model/route";
import { tell } from "../model/trouble";
import { followHealth, isStale, workers } from "../server/health";
import { type Facts, signOut } from "../server/session";
import { Button } from "./controls";
import { Mark } from "./icons";

const THEME = "keyreel.theme";
const theme = signal(localStorage.getItem(THEME));

export function Header({ facts }: { facts: Facts }) {
  useEffect(() => followHealth(), []);
  const view = route.value.view;
  return (
    <header class="header">
      <a class="brand" href="#/" aria-label="Keyreel, create">
        <Mark /> <span>Keyreel</span>
      </a>
      <nav aria-label="Views">
        <a href="#/" aria-current={view === "create" ? "page" : undefined}>
          Create
        </a>
        {facts.key.admin && (
          <a href="#/operate" aria-current={view === "operate" ? "page" : undefined}>
            Operate
          </a>
        )}
      </nav>
      <Workers />
      <ThemeButton />
      <Button kind="quiet" onClick={() => signOut().catch(tell)}>
        Sign out
      </Button>
    </header>
  );
}

function Workers() {
  const all = workers.value;
  if (!all) return <span class="worker" />;
  const ready = all.filter((worker) => worker.ready);
  const first = ready[0] ?? all[0];
  const state = isStale.value ? "stale" : ready.length ? "ready" : all.length ? "loading" : "none";
  const more = all.length > 1 ? `, ${all.length - 1} more` : "";
  const text = { stale: "Server not reachable, last seen: ", ready: "", loading: "Loading ", none: "No worker is running" }[state];
  return (
    <span class={`worker ${state}`} title={first ? `${first.model} on ${first.device}${more}` : undefined}>
      <i />
      <span>
        {text}
        {first && [first.model, first.device].filter(Boolean).join(" · ") + more}
      </span>
    </span>
  );
}

function ThemeButton() {
  const isDark = theme.value ? theme.value === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  const toggle = () => {
    theme.value = isDark ? "light" : "dark";
    localStorage.setItem(THEME, theme.value);
    showTheme();
  };
  return (
    <Button
      kind="quiet"
      icon={isDark ? "sun" : "moon"}
      label={isDark ? "Switch to the light theme" : "Switch to the dark theme"}
      onClick={toggle}
    />
  );
}

export function showTheme(): void {
  if (theme.value) document.documentElement.dataset.theme = theme.value;
}
