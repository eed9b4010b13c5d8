// Where bytes came from: never by colour alone.

import { html } from "../vendor/ui.js";
import { bytes, percent, rate, SOURCES, sum } from "../lib/format.js";

/** `of`: provenance; `rest`: bytes that are still to come; `audit`: read at the origin only to compare. */
export function SplitBar({ of, rest = 0, audit = 0, label }) {
  const parts = SOURCES.map(({ key, label: name }) => `${name} ${bytes(of[key])}`);
  const text = [...parts, ...(audit ? [`Read again to compare ${bytes(audit)}`] : [])].join(", ");
  return html`<div class="split-bar" role="img" aria-label=${`${label || "Bytes by source"}: ${text}`} title=${text}>
    ${SOURCES.map(({ key }) => (of[key] ? html`<span class=${`swatch-fill swatch ${key}`} style=${{ flexGrow: of[key] }}></span>` : null))}
    ${rest > 0 ? html`<span class="rest" style=${{ flexGrow: rest }}></span>` : null}
  </div>`;
}

export function Legend({ of, rates = false }) {
  const total = sum(of);
  return html`<ul class="legend">
    ${SOURCES.map(
      ({ key, label }) => html`<li>
        <span class=${`swatch ${key}`} aria-hidden="true"></span>${label}
        <strong>${rates ? rate(of[key]) : bytes(of[key])}</strong>
        ${!rates && total ? html`<span class="faint">${percent(of[key] / total)}</span>` : null}
      </li>`,
    )}
  </ul>`;
}
