// Personal access tokens: one's own, and with the right those of others.

import { html, useState } from "../vendor/ui.js";
import { ask, may, post, session } from "../lib/api.js";
import { useResource } from "../lib/hooks.js";
import { Button, Empty, Panel, State, Time } from "../parts/basics.js";
import { confirm, FormDialog, OnceDialog } from "../parts/dialog.js";
import { Check, SelectField, TextField } from "../parts/form.js";
import { PageHead } from "../parts/frame.js";
import { PermissionPicker, usePermissions } from "../parts/permissions.js";
import { PagedTable, SelectFilter, useFilters, usePages } from "../parts/table.js";
import { say } from "../parts/toasts.js";

const LIVES = [["86400", "a day"], ["604800", "a week"], ["2592000", "30 days"], ["7776000", "90 days"], ["31536000", "a year"]];

function Create({ close, made, owner }) {
  const [name, setName] = useState("");
  const [life, setLife] = useState("2592000");
  const [all, setAll] = useState(true);
  const [chosen, setChosen] = useState([]);
  const { groups } = usePermissions();
  const mine = groups.map(([resource, verbs]) => [resource, verbs.filter(({ name: one }) => may(one))]).filter(([, verbs]) => verbs.length);
  const submit = async () => {
    const body = { name, expires_in: Number(life), permissions: all ? null : chosen };
    made(await post(`/tokens${owner ? `?user_id=${owner}` : ""}`, body));
  };
  return html`<${FormDialog} title="New token" action="Create" onClose=${close} submit=${submit} wide=${!all}>
    <${TextField} label="Name" value=${name} onChange=${setName} required maxlength="128" hint="What it is for." />
    <${SelectField} label="Holds" value=${life} onChange=${setLife} options=${LIVES} />
    <${Check} label="All permissions of its owner" checked=${all} onChange=${setAll} hint="Never more than its owner's permissions at the time." />
    ${all ? null : html`<${PermissionPicker} groups=${mine} chosen=${chosen} onChange=${setChosen} />`}
  <//>`;
}

const stateOf = (token) => (token.revoked_at ? "revoked" : token.expires_at && Date.parse(token.expires_at) < Date.now() ? "expired" : "active");

export function Tokens() {
  const [filters, change] = useFilters();
  const owner = filters.user_id || "";
  const pages = usePages("/tokens", { user_id: owner });
  const users = useResource(may("users:read") ? "/users?limit=500" : null);
  const [creating, setCreating] = useState(false);
  const [made, setMade] = useState(null);
  const mine = !owner || owner === session.value.user_id;
  const writes = mine || may("users:write");
  const revoke = (token) =>
    confirm(`Revoke ${token.name}?`, {
      text: "It works no more from the next request on.",
      action: "Revoke",
      act: async () => {
        await ask("DELETE", `/tokens/${token.id}`);
        say(`Revoked ${token.name}`);
        pages.reload();
      },
    });
  const columns = [
    { key: "name", label: "Name", lead: true, cell: (token) => html`<strong>${token.name}</strong> <code class="faint">${token.prefix}…</code>` },
    { key: "user", label: "Of", cell: (token) => token.user },
    { key: "state", label: "State", cell: (token) => html`<${State} state=${stateOf(token)} />` },
    { key: "permissions", label: "Permissions", cell: (token) => html`<span class="clip two" title=${token.permissions.join(", ")}>${token.permissions.length > 3 ? `${token.permissions.length} permissions` : token.permissions.join(", ") || "none"}</span>` },
    { key: "used", label: "Last used", num: true, cell: (token) => html`<${Time} at=${token.last_used_at} />${token.last_used_from ? html`<small>from ${token.last_used_from}</small>` : null}` },
    { key: "expires", label: "Expires", num: true, cell: (token) => html`<${Time} at=${token.expires_at} none="never" />` },
    { key: "act", label: "Actions", act: true, cell: (token) => (writes && stateOf(token) === "active" ? html`<${Button} kind="danger" onClick=${() => revoke(token)} aria-label=${`Revoke ${token.name}`}>Revoke<//>` : null) },
  ];
  const create = writes ? html`<${Button} icon="plus" kind="primary" onClick=${() => setCreating(true)}>New token<//>` : null;
  return html`<${PageHead} title="Tokens" below="For programs and the command line. A token has never more rights than its owner has now." actions=${create} />
    <${Panel} flush>
      ${users.data ? html`<div class="filters"><${SelectFilter} label="Of" value=${owner} onChange=${(id) => change({ user_id: id })} options=${[["", "yourself"], ...users.data.items.filter((user) => user.id !== session.value.user_id).map((user) => [user.id, user.name])]} /></div>` : null}
      <${PagedTable} pages=${pages} label="Tokens" columns=${columns} empty=${html`<${Empty} title="No tokens">Make one for the command line: <code>DRAGONFLY_TOKEN</code>.<//>`} />
    <//>
    ${creating ? html`<${Create} owner=${mine ? "" : owner} close=${() => setCreating(false)} made=${(token) => {
      setMade(token);
      pages.reload();
    }} />` : null}
    ${made && !creating ? html`<${OnceDialog} title=${`Token ${made.name}`} text="It is shown this once. Copy it now." secret=${made.token} onClose=${() => setMade(null)} />` : null}`;
}
