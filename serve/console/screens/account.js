// Oneself: what one may, and the password.

import { html, Link, useState } from "../vendor/ui.js";
import { post, session } from "../lib/api.js";
import { Button, Facts, Id, Panel, ProblemBox, Tag } from "../parts/basics.js";
import { TextField } from "../parts/form.js";
import { PageHead } from "../parts/frame.js";
import { say } from "../parts/toasts.js";

export function Account() {
  const me = session.value;
  const [old, setOld] = useState("");
  const [next, setNext] = useState("");
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState(null);
  const submit = async (event) => {
    event.preventDefault();
    setBusy(true);
    setError(null);
    try {
      await post("/session/password", { old, new: next });
      setOld("");
      setNext("");
      say("The password is changed; your other sessions have ended");
    } catch (caught) {
      setError(caught);
    }
    setBusy(false);
  };
  return html`<${PageHead} title="Your account" />
    <div class="columns">
      <${Panel} title="You">
        <div class="stack">
          <${Facts} items=${[["Name", me.name], ["Role", me.role], ["Id", html`<${Id} id=${me.user_id} />`], ["Tokens", html`<${Link} href="/tokens">Your tokens<//>`]]} />
          <div><p class="name">Your permissions</p><p class="tags">${me.permissions.map((one) => html`<${Tag}>${one}<//>`)}</p></div>
        </div>
      <//>
      <${Panel} title="Password">
        <form class="form" onSubmit=${submit}>
          <input type="text" autocomplete="username" value=${me.name} hidden />
          <${TextField} label="Old password" type="password" value=${old} onChange=${setOld} autocomplete="current-password" required />
          <${TextField} label="New password" type="password" value=${next} onChange=${setNext} autocomplete="new-password" required minlength="12" hint="At least 12 characters." />
          <${ProblemBox} error=${error} />
          <div class="form-foot"><${Button} type="submit" kind="primary" busy=${busy}>Change the password<//></div>
        </form>
      <//>
    </div>`;
}
