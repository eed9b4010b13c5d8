// Roles: sets of permissions.

import { html, useState } from "../vendor/ui.js";
import { ask, may, post } from "../lib/api.js";
import { plural } from "../lib/format.js";
import { Button, Empty, Load, Panel, Tag, Time } from "../parts/basics.js";
import { confirm, FormDialog } from "../parts/dialog.js";
import { TextField } from "../parts/form.js";
import { PageHead } from "../parts/frame.js";
import { PermissionMatrix, PermissionPicker, usePermissions } from "../parts/permissions.js";
import { PagedTable, usePages } from "../parts/table.js";
import { say } from "../parts/toasts.js";

function Edit({ role, groups, close, reload }) {
  const [name, setName] = useState(role?.name || "");
  const [description, setDescription] = useState(role?.description || "");
  const [chosen, setChosen] = useState(role?.permissions || []);
  const submit = async () => {
    if (role) await ask("PUT", `/roles/${role.name}`, { body: { description, permissions: chosen }, version: role.version });
    else await post("/roles", { name, description, permissions: chosen });
    say(`Saved ${name}`);
    reload();
  };
  return html`<${FormDialog} title=${role ? `Change ${role.name}` : "New role"} action="Save" onClose=${close} submit=${submit} wide>
    ${role ? null : html`<${TextField} label="Name" value=${name} onChange=${setName} required pattern="[a-z0-9][a-z0-9._\\-]*" maxlength="64" hint="Small letters, digits, dots and dashes." />`}
    <${TextField} label="Description" optional value=${description} onChange=${setDescription} maxlength="2000" />
    <${PermissionPicker} groups=${groups} chosen=${chosen} onChange=${setChosen} />
  <//>`;
}

export function Roles() {
  const pages = usePages("/roles", {}, 100);
  const permissions = usePermissions();
  const [open, setOpen] = useState(null);
  const writes = may("roles:write");
  const remove = (role) =>
    confirm(`Delete ${role.name}?`, {
      text: role.users ? `${plural(role.users, "user")} have it: they must get another role first.` : "Nobody has it.",
      action: "Delete",
      act: async () => {
        await ask("DELETE", `/roles/${role.name}`);
        say(`Deleted ${role.name}`);
        pages.reload();
      },
    });
  const columns = [
    { key: "name", label: "Role", lead: true, cell: (role) => html`<strong>${role.name}</strong> ${role.builtin ? html`<${Tag}>built in<//>` : null}<small>${role.description}</small>` },
    { key: "permissions", label: "Permissions", num: true, cell: (role) => role.permissions.length },
    { key: "users", label: "Users", num: true, cell: (role) => role.users },
    { key: "updated", label: "Changed", num: true, cell: (role) => html`<${Time} at=${role.updated_at} />` },
    ...(writes
      ? [{ key: "act", label: "Actions", act: true, cell: (role) => (role.builtin ? html`<span class="faint">fixed</span>` : html`<span class="row-actions">
          <${Button} onClick=${() => setOpen({ role })} aria-label=${`Change ${role.name}`}>Change<//>
          <${Button} icon="trash" label=${`Delete ${role.name}`} onClick=${() => remove(role)} />
        </span>`) }]
      : []),
  ];
  const create = writes ? html`<${Button} icon="plus" kind="primary" onClick=${() => setOpen("create")}>New role<//>` : null;
  return html`<${PageHead} title="Roles" below="What is not allowed by a role is refused." actions=${create} />
    <div class="stack">
      <${Panel} flush><${PagedTable} pages=${pages} label="Roles" columns=${columns} id=${(role) => role.name} empty=${html`<${Empty} title="No roles" />`} /><//>
      <${Panel} title="Permissions" flush>
        <${Load} of=${permissions} rows=${6}>${() => html`<${PermissionMatrix} groups=${permissions.groups} roles=${pages.rows || []} />`}<//>
      <//>
    </div>
    ${open && permissions.data ? html`<${Edit} role=${open.role} groups=${permissions.groups} close=${() => setOpen(null)} reload=${pages.reload} />` : null}`;
}
