// What an action came to, told where it disturbs nobody, and to screen readers.

import { html, signal } from "../vendor/ui.js";
import { Icon } from "./icons.js";

const toasts = signal([]);
const spoken = signal("");
let number = 0;

/** `quiet`: for screen readers alone. */
export function say(text, { quiet = false, tone = "good" } = {}) {
  spoken.value = text;
  if (quiet) return;
  const id = (number += 1);
  toasts.value = [...toasts.value.slice(-3), { id, text, tone }];
  setTimeout(() => dismiss(id), tone === "bad" ? 12_000 : 5000);
}

export function complain(error) {
  if (error.name === "AbortError") return;
  const detail = error.detail || error.message || "";
  const title = error.title || "That failed";
  say(detail && detail !== title ? `${title}: ${detail}` : title, { tone: "bad" });
}

function dismiss(id) {
  toasts.value = toasts.value.filter((toast) => toast.id !== id);
}

export function Toasts() {
  return html`<div class="toasts">
    <p class="unseen" role="status" aria-live="polite">${spoken.value}</p>
    ${toasts.value.map(
      (toast) => html`<div key=${toast.id} class=${`toast ${toast.tone}`}>
        <${Icon} name=${toast.tone === "bad" ? "half" : "check"} />
        <span>${toast.text}</span>
        <button type="button" class="copy" aria-label="Dismiss" onClick=${() => dismiss(toast.id)}>
          <${Icon} name="close" size=${13} />
        </button>
      </div>`,
    )}
  </div>`;
}
