// Dialogs on the browser's own element: it keeps the focus inside, and gives it back.

import { html, signal, useEffect, useId, useRef, useState } from "../vendor/ui.js";
import { Button, CopyButton, ProblemBox } from "./basics.js";

export function Dialog({ title, onClose, children, wide = false }) {
  const ref = useRef(null);
  const id = useId();
  useEffect(() => {
    ref.current.showModal();
    return () => ref.current?.close();
  }, []);
  const outside = (event) => {
    if (event.target === ref.current) onClose();
  };
  return html`<dialog class=${`dialog${wide ? " wide" : ""}`} ref=${ref} aria-labelledby=${id} onMouseDown=${outside}
    onCancel=${(event) => {
      event.preventDefault();
      onClose();
    }}>
    <div class="inside">
      <header>
        <h2 id=${id}>${title}</h2>
        <${Button} icon="close" kind="plain" label="Close" onClick=${onClose} />
      </header>
      ${children}
    </div>
  </dialog>`;
}

const question = signal(null);

/** Asks before `act` is done; what goes wrong is shown in the dialog, which then stays. */
export function confirm(title, { text, action, tone = "danger", act, content }) {
  question.value = { title, text, action, tone, act, content };
}

export function Confirmation() {
  const asked = question.value;
  return asked ? html`<${Question} key=${asked.title} asked=${asked} />` : null;
}

function Question({ asked }) {
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState(null);
  const [note, setNote] = useState("");
  const close = () => {
    if (!busy) question.value = null;
  };
  const act = async (event) => {
    event.preventDefault();
    setBusy(true);
    setError(null);
    try {
      await asked.act(note);
      question.value = null;
    } catch (caught) {
      setError(caught);
      setBusy(false);
    }
  };
  return html`<${Dialog} title=${asked.title} onClose=${close}>
    <form class="content" onSubmit=${act}>
      ${asked.text ? html`<p>${asked.text}</p>` : null}
      ${asked.content
        ? html`<label class="field"><span class="name">${asked.content}</span>
            <input value=${note} onInput=${(event) => setNote(event.currentTarget.value)} maxlength="2000" /></label>`
        : null}
      <${ProblemBox} error=${error} />
      <footer>
        <${Button} onClick=${close}>Back<//>
        <${Button} type="submit" kind=${asked.tone} busy=${busy}>${asked.action}<//>
      </footer>
    </form>
  <//>`;
}

/** A form in a dialog. `submit` does the work; the dialog closes when it went well. */
export function FormDialog({ title, action, onClose, submit, children, wide = false, tone = "primary" }) {
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState(null);
  const send = async (event) => {
    event.preventDefault();
    setBusy(true);
    setError(null);
    try {
      await submit();
      onClose();
    } catch (caught) {
      setError(caught);
      setBusy(false);
    }
  };
  return html`<${Dialog} title=${title} onClose=${onClose} wide=${wide}>
    <form class="content" onSubmit=${send}>
      ${children}
      <${ProblemBox} error=${error} />
      <footer>
        <${Button} onClick=${onClose}>Back<//>
        <${Button} type="submit" kind=${tone} busy=${busy}>${action}<//>
      </footer>
    </form>
  <//>`;
}

/** Something that is shown this once. */
export function OnceDialog({ title, text, secret, onClose }) {
  return html`<${Dialog} title=${title} onClose=${onClose}>
    <div class="content">
      <p>${text}</p>
      <div class="once"><code>${secret}</code><${CopyButton} text=${secret} what="secret" shown=${false} /></div>
      <footer><${Button} kind="primary" onClick=${onClose}>I have stored it<//></footer>
    </div>
  <//>`;
}
