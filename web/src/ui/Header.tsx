import { signal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { route } from "../model/route";
import { getJson } from "../server/http";
import { type Facts, signOut } from "../server/session";
import { Button } from "./controls";
import { Mark } from "./icons";

interface Health {
  readonly workers: readonly { readonly device: string; readonly model: string; readonly ready: boolean }[];
}

const HEALTH_PAUSE = 10_000;
const THEME = "keyreel.theme";
const health = signal<Health | null>(null);
const theme = signal(localStorage.getItem(THEME));

export function Header({ facts }: { facts: Facts }) {
  useEffect(() => {
    const look = () => void getJson<Health>("health").then((found) => (health.value = found), () => null);
    look();
    const timer = setInterval(look, HEALTH_PAUSE);
    return () => clearInterval(timer);
  }, []);
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
      <Button kind="quiet" onClick={signOut}>
        Sign out
      </Button>
    </header>
  );
}

function Workers() {
  const workers = health.value?.workers;
  if (!workers) return <span class="worker" />;
  const ready = workers.filter((worker) => worker.ready);
  const first = ready[0] ?? workers[0];
  const state = ready.length ? "ready" : workers.length ? "loading" : "none";
  const more = workers.length > 1 ? `, ${workers.length - 1} more` : "";
  const text = { ready: "", loading: "Loading ", none: "No worker: requests wait" }[state];
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
      label={isDark ? "Light colours" : "Dark colours"}
      onClick={toggle}
    />
  );
}

export function showTheme(): void {
  if (theme.value) document.documentElement.dataset.theme = theme.value;
}
