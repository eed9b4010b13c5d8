// The console: who is signed in, the frame round every screen, and which screen.

import { html, render, Route, Router, Switch, useEffect, useErrorBoundary, useLocation, useRef, useState } from "./vendor/ui.js";
import { session, whoAmI } from "./lib/api.js";
import { Frame } from "./parts/frame.js";
import { Confirmation } from "./parts/dialog.js";
import { Empty, Loading, ProblemBox } from "./parts/basics.js";
import { Toasts } from "./parts/toasts.js";
import { SignIn } from "./screens/sign-in.js";

/** Path -> module and component: a screen's code is fetched when it is looked at. */
const SCREENS = [
  ["/", "overview", "Overview"],
  ["/distributions", "jobs", "Jobs", { kind: "distribution" }],
  ["/distributions/new", "job-new", "JobNew", { kind: "distribution" }],
  ["/distributions/:id", "job", "Job", { kind: "distribution" }],
  ["/preheats", "jobs", "Jobs", { kind: "preheat" }],
  ["/preheats/new", "job-new", "JobNew", { kind: "preheat" }],
  ["/preheats/:id", "job", "Job", { kind: "preheat" }],
  ["/schedules", "schedules", "Schedules"],
  ["/schedules/new", "schedule-edit", "ScheduleEdit"],
  ["/schedules/:id", "schedule-edit", "ScheduleEdit"],
  ["/tasks", "tasks", "Tasks"],
  ["/tasks/:id", "task", "Task"],
  ["/nodes", "nodes", "Nodes"],
  ["/nodes/:id", "node", "Node"],
  ["/config", "config", "Config"],
  ["/secrets", "secrets", "Secrets"],
  ["/webhooks", "webhooks", "Webhooks"],
  ["/webhooks/:id", "webhook", "Webhook"],
  ["/users", "users", "Users"],
  ["/roles", "roles", "Roles"],
  ["/tokens", "tokens", "Tokens"],
  ["/audit", "audit", "Audit"],
  ["/account", "account", "Account"],
];
const loaded = new Map();

function Screen({ module, name, params, props }) {
  const [, redraw] = useState(0);
  const [failed, setFailed] = useState(null);
  const [error, reset] = useErrorBoundary();
  const found = loaded.get(module);
  useEffect(() => {
    if (found) return;
    import(`./screens/${module}.js`).then(
      (code) => {
        loaded.set(module, code);
        redraw((n) => n + 1);
      },
      (error) => {
        console.error(error);
        setFailed({ title: "This page could not be loaded", detail: "Reload the page: the console may be newer now." });
      },
    );
  }, [module]);
  if (failed) return html`<${ProblemBox} error=${failed} again=${() => location.reload()} />`;
  if (error) {
    console.error(error);
    return html`<${ProblemBox} error=${{ title: "This page failed", detail: String(error) }} again=${reset} />`;
  }
  if (!found) return html`<${Loading} rows=${6} />`;
  return html`<${found[name]} ...${props} ...${params} key=${params?.id || name + (props?.kind || "")} />`;
}

/** Whoever follows a link starts at the new screen's heading, with the eyes and with a screen reader. */
function FocusKeeper() {
  const [path] = useLocation();
  const first = useRef(true);
  useEffect(() => {
    if (first.current) {
      first.current = false;
      return;
    }
    window.scrollTo(0, 0);
    document.getElementById("main")?.focus({ preventScroll: true });
  }, [path]);
  return null;
}

function Nowhere() {
  return html`<${Empty} title="Page not found">There is no page at this address.<//>`;
}

function App() {
  const [failed, setFailed] = useState(null);
  const ask = () => {
    setFailed(null);
    whoAmI().catch(setFailed);
  };
  useEffect(ask, []);
  if (failed) return html`<main class="main"><${ProblemBox} error=${failed} again=${ask} /></main>`;
  if (session.value === undefined) return html`<p class="boot" role="status">Loading the console…</p>`;
  if (session.value === null) return html`<${SignIn} /><${Toasts} />`;
  return html`<${Router} base="/console">
    <${FocusKeeper} />
    <${Frame}>
      <${Switch}>
        ${SCREENS.map(
          ([path, module, name, props]) => html`<${Route} path=${path}>
            ${(params) => html`<${Screen} key=${path} module=${module} name=${name} params=${params} props=${props} />`}
          <//>`,
        )}
        <${Route}><${Nowhere} /><//>
      <//>
    <//>
    <${Confirmation} />
    <${Toasts} />
  <//>`;
}

const root = document.getElementById("app");
root.replaceChildren();
render(html`<${App} />`, root);
