// Who may sign in, and as what.

import { html, useState } from "../vendor/ui.js";
import { ask, get, may, post, session } from "../lib/api.js";
import { useResource } from "../lib/hooks.js";
import { Button, Empty, Panel, State, Tag, Time } from "../parts/basics.js";
import { confirm, FormDialog } from "../parts/dialog.js";
import { Check, SelectField, TextField } from "../parts/form.js";
import { PageHead } from "../parts/frame.js";
import { PagedTable, SearchBox, useFilters, usePages } from "../parts/table.js";
import { say } from "../parts/toasts.js";

function useRoles() {
  const found = useResource(may("roles:read") ? "/roles?limit=200" : null);
  return (found.data?.items || [{ name: "admin" }, { name: "operator" }, { name: "viewer" }]).map((role) => [role.name, role.name]);
}

function Create({ close, reload }) {
  const [name, setName] = useState("");
  const [role, setRole] = useState("viewer");
  const [password, setPassword] = useState("");
  const submit = async () => {
    await post("/users", { name, role, password: password || null });
    say(`Created ${name}`);
    reload();
  };
  return html`<${FormDialog} title="New user" action="Create" onClose=${close} submit=${submit}>
    <${TextField} label="Name" value=${name} onChange=${setName} required autocomplete="off" maxlength="128" />
    <${SelectField} label="Role" value=${role} onChange=${setRole} options=${useRoles()} />
    <${TextField} label="Password" optional type="password" value=${password} onChange=${setPassword} minlength="12" autocomplete="new-password" hint="At least 12 characters. Without one: no sign-in by password, tokens only." />
  <//>`;
}

function Change({ user, close, reload }) {
  const [role, setRole] = useState(user.role);
  const [password, setPassword] = useState("");
  const [disabled, setDisabled] = useState(user.disabled);
  const submit = async () => {
    const body = { role: role === user.role ? null : role, disabled: disabled === user.disabled ? null : disabled, password: password || null };
    const changes = Object.fromEntries(Object.entries(body).filter(([, value]) => value !== null));
    await ask("PATCH", `/users/${user.id}`, { body: changes, version: user.version });
    say(`Changed ${user.name}`);
    reload();
  };
  return html`<${FormDialog} title=${`Change ${user.name}`} action="Save" onClose=${close} submit=${submit}>
    <${SelectField} label="Role" value=${role} onChange=${setRole} options=${useRoles()} />
    <${TextField} label="New password" optional type="password" value=${password} onChange=${setPassword} minlength="12" autocomplete="new-password" hint="Ends the sessions that there are." />
    <${Check} label="Disabled" checked=${disabled} onChange=${setDisabled} hint="Neither password nor tokens work." />
  <//>`;
}

export function Users() {
  const [filters, change] = useFilters();
  const pages = usePages("/users", filters);
  const [open, setOpen] = useState(null);
  const writes = may("users:write");
  const remove = (user) =>
    confirm(`Delete ${user.name}?`, {
      text: "Sessions, tokens and the user go. What it did stays in the audit.",
      action: "Delete",
      act: async () => {
        await ask("DELETE", `/users/${user.id}`);
        say(`Deleted ${user.name}`);
        pages.reload();
      },
    });
  const edit = async (user) => setOpen({ user: await get(`/users/${user.id}`).catch(() => user) });
  const columns = [
    { key: "name", label: "Name", lead: true, sort: "name", cell: (user) => html`<strong>${user.name}</strong>${user.id === session.value.user_id ? html` <${Tag}>you<//>` : null}` },
    { key: "role", label: "Role", cell: (user) => user.role },
    { key: "state", label: "State", cell: (user) => html`<${State} state=${user.disabled ? "disabled" : "active"} />` },
    { key: "seen", label: "Last seen", num: true, cell: (user) => html`<${Time} at=${user.last_seen_at} />` },
    { key: "created", label: "Created", num: true, sort: "created_at", cell: (user) => html`<${Time} at=${user.created_at} />` },
    ...(writes
      ? [{ key: "act", label: "Actions", act: true, cell: (user) => html`<span class="row-actions">
          <${Button} onClick=${() => edit(user)} aria-label=${`Change ${user.name}`}>Change<//>
          ${user.id === session.value.user_id ? null : html`<${Button} icon="trash" label=${`Delete ${user.name}`} onClick=${() => remove(user)} />`}
        </span>` }]
      : []),
  ];
  const create = writes ? html`<${Button} icon="plus" kind="primary" onClick=${() => setOpen("create")}>New user<//>` : null;
  return html`<${PageHead} title="Users" below="Who may sign in or use tokens. There is no open sign-up." actions=${create} />
    <${Panel} flush>
      <div class="filters"><${SearchBox} label="Name" value=${filters.name} onChange=${(name) => change({ name })} /></div>
      <${PagedTable} pages=${pages} label="Users" columns=${columns} sort=${filters.sort || "name"} onSort=${(sort) => change({ sort })} empty=${html`<${Empty} title="No matching node" />`} />
    <//>
    ${open === "create" ? html`<${Create} close=${() => setOpen(null)} reload=${pages.reload} />` : null}
    ${open?.user ? html`<${Change} user=${open.user} close=${() => setOpen(null)} reload=${pages.reload} />` : null}`;
}
