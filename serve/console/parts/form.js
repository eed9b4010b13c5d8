// Fields with their labels, hints and errors tied together.

import { html, useId } from "../vendor/ui.js";

export function Field({ label, hint, error, optional = false, children }) {
  const id = useId();
  const described = [hint ? `${id}-hint` : null, error ? `${id}-error` : null].filter(Boolean).join(" ");
  return html`<div class=${`field${error ? " wrong" : ""}`}>
    <label class="name" for=${id}>${label}${optional ? html` <span class="faint">optional</span>` : null}</label>
    ${children({ id, "aria-describedby": described || undefined, "aria-invalid": error ? "true" : undefined })}
    ${hint ? html`<p class="hint" id=${`${id}-hint`}>${hint}</p>` : null}
    ${error ? html`<p class="error" id=${`${id}-error`}>${error}</p>` : null}
  </div>`;
}

export function TextField({ label, hint, error, optional, value, onChange, lines = 0, ...rest }) {
  return html`<${Field} label=${label} hint=${hint} error=${error} optional=${optional}>
    ${(ids) =>
      lines
        ? html`<textarea rows=${lines} ...${ids} ...${rest} value=${value} onInput=${(e) => onChange(e.currentTarget.value)}></textarea>`
        : html`<input type="text" ...${ids} ...${rest} value=${value} onInput=${(e) => onChange(e.currentTarget.value)} />`}
  <//>`;
}

/** `options`: [value, text] pairs. A value that is not among them is shown all the same, or the first would seem chosen. */
export function SelectField({ label, hint, error, optional, value, onChange, options, ...rest }) {
  const all = options.some(([key]) => key === value) ? options : [...options, [value, value]];
  return html`<${Field} label=${label} hint=${hint} error=${error} optional=${optional}>
    ${(ids) => html`<select ...${ids} ...${rest} value=${value} onChange=${(e) => onChange(e.currentTarget.value)}>
      ${all.map(([key, text]) => html`<option value=${key} selected=${key === value}>${text}</option>`)}
    </select>`}
  <//>`;
}

export function Check({ label, hint, checked, onChange, ...rest }) {
  const id = useId();
  return html`<div class="check">
    <input type="checkbox" id=${id} checked=${checked} onChange=${(e) => onChange(e.currentTarget.checked)} ...${rest}
      aria-describedby=${hint ? `${id}-hint` : undefined} />
    <label for=${id}>${label}</label>
    ${hint ? html`<p class="hint" id=${`${id}-hint`}>${hint}</p>` : null}
  </div>`;
}

export function Choice({ legend, options, value, onChange }) {
  const id = useId();
  return html`<fieldset class="choice">
    <legend class="name">${legend}</legend>
    <div class="options">
      ${options.map(
        ([key, text]) => html`<label class="option">
          <input type="radio" name=${id} value=${key} checked=${key === value} onChange=${() => onChange(key)} /><span>${text}</span>
        </label>`,
      )}
    </div>
  </fieldset>`;
}
