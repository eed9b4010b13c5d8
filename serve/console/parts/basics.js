// Small things that every screen is made of.

import { html, useEffect, useId, useState } from "../vendor/ui.js";
import { absolute, ago, short } from "../lib/format.js";
import { clock } from "../lib/hooks.js";
import { say } from "./toasts.js";
import { Icon } from "./icons.js";

export function Button({ icon, kind = "", busy = false, children, label, ...rest }) {
  const classes = `button ${kind}${children ? "" : " only-icon"}`;
  return html`<button type="button" class=${classes} aria-label=${label} title=${label} ...${rest}
    disabled=${rest.disabled || busy} aria-busy=${busy || undefined}>
    ${busy ? html`<${Icon} name="run" spin />` : icon ? html`<${Icon} name=${icon} />` : null}
    ${children ? html`<span>${children}</span>` : null}
  </button>`;
}

/** Relative, and absolute where the pointer rests. */
export function Time({ at, none = "never" }) {
  if (!at) return html`<span class="faint">${none}</span>`;
  return html`<time datetime=${at} title=${absolute(at)}>${ago(at, clock.value)}</time>`;
}

export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Over plain HTTP there is no clipboard but the old way.
    const area = document.createElement("textarea");
    area.value = text;
    (document.querySelector("dialog[open]") || document.body).append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
}

/** `shown`: whether the label may say the text; of a secret it may not. */
export function CopyButton({ text, what = "id", shown = true }) {
  const [done, setDone] = useState(false);
  useEffect(() => {
    if (!done) return undefined;
    const timer = setTimeout(() => setDone(false), 1500);
    return () => clearTimeout(timer);
  }, [done]);
  const act = async (event) => {
    event.preventDefault();
    event.stopPropagation();
    await copy(text);
    setDone(true);
    say(`Copied the ${what}`, { quiet: true });
  };
  return html`<button type="button" class="copy" onClick=${act} aria-label=${shown ? `Copy the ${what} ${text}` : `Copy the ${what}`} title="Copy">
    <${Icon} name=${done ? "check" : "copy"} size=${13} />
  </button>`;
}

export function Id({ id, length = 8, what = "id" }) {
  if (!id) return html`<span class="faint">–</span>`;
  return html`<span class="id"><code title=${id}>${short(id, length)}</code><${CopyButton} text=${id} what=${what} /></span>`;
}

const STATES = {
  queued: ["clock", "idle", "Queued"],
  waiting: ["clock", "idle", "Waiting"],
  pending: ["clock", "idle", "Pending"],
  running: ["run", "info", "Running"],
  starting: ["run", "info", "Starting"],
  succeeded: ["check", "good", "Succeeded"],
  done: ["check", "good", "Succeeded"],
  healthy: ["check", "good", "Healthy"],
  delivered: ["check", "good", "Delivered"],
  enabled: ["check", "good", "Enabled"],
  active: ["check", "good", "Active"],
  ok: ["check", "good", "OK"],
  success: ["check", "good", "Success"],
  partial: ["half", "warn", "Partial"],
  draining: ["half", "warn", "Draining"],
  drained: ["pause", "warn", "Drained"],
  failing: ["half", "warn", "Failing"],
  failed: ["cross", "bad", "Failed"],
  unhealthy: ["cross", "bad", "Unhealthy"],
  refused: ["cross", "bad", "Refused"],
  denied: ["cross", "bad", "Denied"],
  dead: ["cross", "bad", "Dead"],
  missing: ["dash", "bad", "Missing"],
  cancelled: ["stop", "idle", "Cancelled"],
  disabled: ["stop", "idle", "Disabled"],
  revoked: ["stop", "idle", "Revoked"],
  expired: ["clock", "idle", "Expired"],
};

/** A state: by its word, its sign and its colour. */
export function State({ state, label }) {
  const [icon, tone, word] = STATES[state] || ["dash", "idle", state];
  return html`<span class=${`state ${tone}`} data-state=${state}>
    <${Icon} name=${icon} size=${12} spin=${icon === "run"} />${label || word}
  </span>`;
}

export function Tag({ tone = "idle", children }) {
  return html`<span class=${`tag ${tone}`}>${children}</span>`;
}

/** `value` 0 to 1. */
export function Bar({ value, label, tone = "" }) {
  const shown = Math.max(0, Math.min(1, value || 0));
  return html`<span class=${`bar ${tone}`} role="progressbar" aria-label=${label} aria-valuemin="0" aria-valuemax="100"
    aria-valuenow=${Math.floor(shown * 100)}>
    <span class="fill" style=${{ transform: `scaleX(${shown})` }}></span>
  </span>`;
}

/** A problem of the manager, as it was told: title, detail, and where in the request. */
export function ProblemBox({ error, again }) {
  if (!error) return null;
  return html`<div class="problem" role="alert">
    <${Icon} name="half" />
    <div>
      <p class="title">${error.title || "Something failed"}</p>
      ${(error.detail || error.message) && (error.detail || error.message) !== error.title
        ? html`<p>${error.detail || error.message}</p>`
        : null}
      ${error.errors?.length > 1
        ? html`<ul>${error.errors.map((one) => html`<li><code>${one.where?.slice(1).join(".")}</code> ${one.what}</li>`)}</ul>`
        : null}
      ${error.request ? html`<p class="fine">Request <code>${error.request}</code></p>` : null}
    </div>
    ${again ? html`<${Button} icon="retry" onClick=${again}>Try again<//>` : null}
  </div>`;
}

export function Empty({ title, children, action }) {
  return html`<div class="empty">
    <p class="title">${title}</p>
    ${children ? html`<p>${children}</p>` : null}
    ${action}
  </div>`;
}

export function Loading({ rows = 4, label = "Loading" }) {
  return html`<div class="skeleton" role="status">
    <span class="unseen">${label}…</span>
    ${Array.from({ length: rows }, () => html`<span class="line" aria-hidden="true"></span>`)}
  </div>`;
}

/** One of loading, error, empty, or the content. */
export function Load({ of, rows, children }) {
  if (of.error && of.data === undefined) return html`<${ProblemBox} error=${of.error} again=${of.reload} />`;
  if (of.data === undefined) return html`<${Loading} rows=${rows} />`;
  return children(of.data);
}

export function Panel({ title, meta, actions, children, flush = false, ...rest }) {
  const id = useId();
  return html`<section class=${`panel${flush ? " flush" : ""} ${rest.class || ""}`} aria-labelledby=${title ? id : undefined}>
    ${title
      ? html`<header>
          <h2 id=${id}>${title}</h2>
          ${meta ? html`<span class="meta">${meta}</span>` : null}
          ${actions ? html`<div class="actions">${actions}</div>` : null}
        </header>`
      : null}
    <div class="body">${children}</div>
  </section>`;
}

/** Names and values, side by side. */
export function Facts({ items }) {
  return html`<dl class="facts">
    ${items
      .filter(Boolean)
      .map(([name, value]) => html`<div><dt>${name}</dt><dd>${value ?? html`<span class="faint">–</span>`}</dd></div>`)}
  </dl>`;
}

export function Segments({ label, options, value, onChange }) {
  return html`<div class="segments" role="group" aria-label=${label}>
    ${options.map(
      ([key, text]) => html`<button type="button" aria-pressed=${key === value} onClick=${() => onChange(key)}>${text}</button>`,
    )}
  </div>`;
}
