// Round every screen: navigation, who is signed in, theme, and whether news arrive.

import { html, Link, signal, useEffect, useLocation, useRef, useState } from "../vendor/ui.js";
import { ask, may, session, signedOut } from "../lib/api.js";
import { streams } from "../lib/stream.js";
import { Button } from "./basics.js";
import { Icon, Mark } from "./icons.js";
import { complain } from "./toasts.js";

const GROUPS = [
  [
    "",
    [
      ["/", "overview", "Overview", "stats:read"],
      ["/distributions", "distributions", "Distributions", "jobs:read"],
      ["/preheats", "preheats", "Preheats", "jobs:read"],
      ["/schedules", "schedules", "Schedules", "schedules:read"],
    ],
  ],
  [
    "Cluster",
    [
      ["/tasks", "tasks", "Tasks", "tasks:read"],
      ["/nodes", "nodes", "Nodes", "nodes:read"],
      ["/config", "config", "Config", "config:read"],
    ],
  ],
  [
    "Access",
    [
      ["/users", "users", "Users", "users:read"],
      ["/roles", "roles", "Roles", "roles:read"],
      ["/tokens", "tokens", "Tokens", null],
      ["/secrets", "secrets", "Secrets", "secrets:read"],
    ],
  ],
  [
    "Records",
    [
      ["/audit", "audit", "Audit", "audit:read"],
      ["/webhooks", "webhooks", "Webhooks", "webhooks:read"],
    ],
  ],
];

export const theme = signal(document.documentElement.dataset.theme);

function switchTheme() {
  theme.value = theme.value === "dark" ? "light" : "dark";
  document.documentElement.dataset.theme = theme.value;
  localStorage.setItem("theme", theme.value);
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", (event) => {
  if (localStorage.getItem("theme")) return;
  theme.value = event.matches ? "dark" : "light";
  document.documentElement.dataset.theme = theme.value;
});

function ThemeSwitch() {
  const next = theme.value === "dark" ? "light" : "dark";
  return html`<${Button} kind="plain" icon=${theme.value === "dark" ? "sun" : "moon"} label=${`Use the ${next} theme`} onClick=${switchTheme} />`;
}

/** Whether what moves on the screen is up to date. */
function LinkState() {
  const states = Object.values(streams.value);
  const state = states.includes("waiting") ? "waiting" : states.includes("live") ? "live" : "";
  return html`<p class=${`link-state ${state}`} role="status">
    ${state ? html`<span class="dot" aria-hidden="true"></span>${state === "live" ? "Live" : "Reconnecting…"}` : null}
  </p>`;
}

async function signOut() {
  try {
    await ask("DELETE", "/session");
    signedOut();
  } catch (error) {
    complain(error);
  }
}

function Side({ onGo }) {
  const [path] = useLocation();
  const current = (to) => (to === "/" ? path === "/" : path === to || path.startsWith(`${to}/`));
  const me = session.value;
  return html`<div class="side">
    <${Link} href="/" class="brand" onClick=${onGo}><${Mark} size=${24} />dragonfly-ray<//>
    <nav aria-label="Main">
      ${GROUPS.map(([title, items]) => {
        const shown = items.filter((item) => may(item[3]));
        if (!shown.length) return null;
        return html`${title ? html`<p class="group">${title}</p>` : null}
          ${shown.map(
            ([to, icon, text]) => html`<${Link} href=${to} aria-current=${current(to) ? "page" : undefined} onClick=${onGo}>
              <${Icon} name=${icon} />${text}
            <//>`,
          )}`;
      })}
    </nav>
    <div class="foot">
      <${LinkState} />
      <div class="who">
        <${Link} href="/account" onClick=${onGo} title="Your account"><strong>${me.name}</strong><span>${me.role}</span><//>
        <${ThemeSwitch} />
        <${Button} kind="plain" icon="out" label="Sign out" onClick=${signOut} />
      </div>
    </div>
  </div>`;
}

function Drawer({ onClose }) {
  const ref = useRef(null);
  useEffect(() => {
    ref.current.showModal();
    return () => ref.current?.close();
  }, []);
  return html`<dialog class="drawer" ref=${ref} aria-label="Navigation" onCancel=${onClose} onClose=${onClose}
    onMouseDown=${(event) => event.target === ref.current && onClose()}>
    <${Side} onGo=${onClose} />
  </dialog>`;
}

export function Frame({ children }) {
  const [open, setOpen] = useState(false);
  return html`<a class="skip" href="#main" onClick=${(event) => {
      event.preventDefault();
      document.getElementById("main").focus();
    }}>Skip to the content</a>
    <div class="frame">
      <header class="topbar">
        <${Button} kind="plain" icon="menu" label="Open the navigation" onClick=${() => setOpen(true)} />
        <${Link} href="/" class="brand"><${Mark} size=${22} />dragonfly-ray<//>
        <${LinkState} />
      </header>
      <${Side} />
      <main id="main" class="main" tabindex="-1">${children}</main>
    </div>
    ${open ? html`<${Drawer} onClose=${() => setOpen(false)} />` : null}`;
}

/** The head of a screen. `above`: [path, text] pairs that lead back. */
export function PageHead({ title, above = [], below, actions }) {
  useEffect(() => {
    const plain = typeof title === "string" ? title : "";
    if (plain) document.title = `${plain} · dragonfly-ray`;
  }, [title]);
  return html`<div class="page-head">
    <div class="titles">
      ${above.length
        ? html`<nav class="above" aria-label="Breadcrumb">
            ${above.map(([to, text]) => html`<${Link} href=${to}>${text}<//><${Icon} name="right" size=${10} />`)}
          </nav>`
        : null}
      <h1>${title}</h1>
      ${below ? html`<div class="below">${below}</div>` : null}
    </div>
    ${actions ? html`<div class="actions">${actions}</div>` : null}
  </div>`;
}
