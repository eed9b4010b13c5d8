// Credentials of sources, by name. Their values are shown to nobody.

import { html, useEffect, useState } from "../vendor/ui.js";
import { ask, get, may, post } from "../lib/api.js";
import { Button, Empty, Panel, ProblemBox, State, Tag, Time } from "../parts/basics.js";
import { confirm, FormDialog } from "../parts/dialog.js";
import { Check, TextField } from "../parts/form.js";
import { PageHead } from "../parts/frame.js";
import { PagedTable, usePages } from "../parts/table.js";
import { say } from "../parts/toasts.js";

const NOTHING = [{ name: "", value: "" }];

function Pairs({ legend, hint, pairs, onChange, placeholder }) {
  const put = (i, changes) => onChange(pairs.map((pair, at) => (at === i ? { ...pair, ...changes } : pair)));
  return html`<fieldset class="pairs">
    <legend class="name">${legend}</legend>
    ${pairs.map(
      (pair, i) => html`<div class="line">
        <input aria-label=${`${legend}: name ${i + 1}`} placeholder=${placeholder} value=${pair.name} onInput=${(e) => put(i, { name: e.currentTarget.value })} autocomplete="off" spellcheck="false" />
        <input aria-label=${`${legend}: value ${i + 1}`} type="password" placeholder="value" value=${pair.value} onInput=${(e) => put(i, { value: e.currentTarget.value })} autocomplete="new-password" />
        <${Button} icon="close" kind="plain" label=${`Remove ${pair.name || `row ${i + 1}`}`} onClick=${() => onChange(pairs.length > 1 ? pairs.filter((_, at) => at !== i) : NOTHING)} />
      </div>`,
    )}
    <div><${Button} icon="plus" onClick=${() => onChange([...pairs, ...NOTHING])}>Add<//></div>
    <p class="hint">${hint}</p>
  </fieldset>`;
}

const lines = (text) => text.split("\n").map((line) => line.trim()).filter(Boolean);
const object = (pairs) => Object.fromEntries(pairs.filter((pair) => pair.name.trim()).map((pair) => [pair.name.trim(), pair.value]));

function Edit({ secret, close, reload }) {
  const [name, setName] = useState(secret?.name || "");
  const [description, setDescription] = useState(secret?.description || "");
  const [hosts, setHosts] = useState((secret?.hosts || []).join("\n"));
  const [headers, setHeaders] = useState(NOTHING);
  const [options, setOptions] = useState(NOTHING);
  const [clear, setClear] = useState(secret?.allow_http || false);
  const submit = async () => {
    const body = { description, headers: object(headers), storage_options: object(options), hosts: lines(hosts), allow_http: clear };
    if (secret) await ask("PUT", `/secrets/${encodeURIComponent(secret.name)}`, { body, version: secret.version });
    else await post("/secrets", { ...body, name });
    say(`Saved ${name}`);
    reload();
  };
  return html`<${FormDialog} title=${secret ? `Replace ${secret.name}` : "New secret"} action="Save" onClose=${close} submit=${submit}>
    ${secret ? html`<p>All its values are replaced: those that it has are shown to nobody.</p>` : html`<${TextField} label="Name" value=${name} onChange=${setName} required maxlength="128" />`}
    <${TextField} label="Description" optional value=${description} onChange=${setDescription} maxlength="2000" />
    <${Pairs} legend="HTTP headers" placeholder="Authorization" pairs=${headers} onChange=${setHeaders} hint="Sent to HTTP sources." />
    <${Pairs} legend="Storage options" placeholder="key" pairs=${options} onChange=${setOptions} hint="What fsspec takes for the protocol, such as key and secret for s3." />
    <${TextField} label="Allowed hosts" required lines=${2} value=${hosts} onChange=${setHosts} spellcheck="false" hint="Hosts or buckets that it may be sent to, one a line: host, host:port, *.domain, bucket. An endpoint among the storage options counts, too." />
    <${Check} label="Allow without TLS (http)" checked=${clear} onChange=${setClear} hint="Sent over http, too, where everybody on the way can read it." />
  <//>`;
}

/** Who may name it in jobs, besides its owner and admins. */
function Grants({ secret, close, reload }) {
  const [known, setKnown] = useState(null);
  const [error, setError] = useState(null);
  const [users, setUsers] = useState("");
  const [roles, setRoles] = useState("");
  const path = `/secrets/${encodeURIComponent(secret.name)}/grants`;
  useEffect(() => {
    get(path).then((found) => {
      setUsers(found.users.join("\n"));
      setRoles(found.roles.join("\n"));
      setKnown(found);
    }, setError);
  }, [path]);
  const submit = async () => {
    if (!known) return;
    await ask("PUT", path, { body: { users: lines(users), roles: lines(roles) }, version: secret.version });
    say(`Granted ${secret.name}`);
    reload();
  };
  return html`<${FormDialog} title=${`Who may use ${secret.name}`} action="Save" onClose=${close} submit=${submit}>
    <p>Its owner, ${secret.created_by || "nobody any more"}, and admins always may. It stays with its hosts, and shows its values to nobody.</p>
    <${ProblemBox} error=${error} />
    <${TextField} label="Users" optional lines=${3} value=${users} onChange=${setUsers} spellcheck="false" disabled=${!known} hint="Names, one a line." />
    <${TextField} label="Roles" optional lines=${2} value=${roles} onChange=${setRoles} spellcheck="false" disabled=${!known} hint="Everybody who has one of these, one a line." />
  <//>`;
}

export function Secrets() {
  const pages = usePages("/secrets", {});
  const [open, setOpen] = useState(null);
  const writes = may("secrets:write");
  const remove = (secret) =>
    confirm(`Delete ${secret.name}?`, {
      text: "Jobs and schedules that name it fail from now on.",
      action: "Delete",
      act: async () => {
        await ask("DELETE", `/secrets/${encodeURIComponent(secret.name)}`);
        say(`Deleted ${secret.name}`);
        pages.reload();
      },
    });
  const columns = [
    { key: "name", label: "Name", lead: true, cell: (secret) => html`<strong>${secret.name}</strong>${secret.disabled ? html` <${State} state="disabled" /><small>${secret.disabled}</small>` : null}${secret.description ? html`<small>${secret.description}</small>` : null}` },
    { key: "fields", label: "Holds", cell: (secret) => html`<span class="tags">${secret.fields.map((field) => html`<${Tag}>${field}<//>`)}</span>` },
    { key: "hosts", label: "Allowed hosts", cell: (secret) => html`${secret.hosts.join(", ") || html`<span class="faint">none</span>`}${secret.allow_http ? html`<small>also without TLS</small>` : null}` },
    { key: "use", label: "You", cell: (secret) => (secret.may_use ? "may use it" : html`<span class="faint">may not use it</span>`) },
    { key: "by", label: "By", narrow: false, cell: (secret) => secret.created_by },
    { key: "used", label: "Last used", num: true, cell: (secret) => html`<${Time} at=${secret.last_used_at} />` },
    { key: "updated", label: "Changed", num: true, cell: (secret) => html`<${Time} at=${secret.updated_at} />` },
    ...(writes
      ? [{ key: "act", label: "Actions", act: true, cell: (secret) => secret.may_keep && html`<span class="row-actions">
          <${Button} onClick=${() => setOpen({ grants: secret })} aria-label=${`Grant ${secret.name}`}>Grant<//>
          <${Button} onClick=${() => setOpen({ secret })} aria-label=${`Replace ${secret.name}`}>Replace<//>
          <${Button} icon="trash" label=${`Delete ${secret.name}`} onClick=${() => remove(secret)} />
        </span>` }]
      : []),
  ];
  const create = writes ? html`<${Button} icon="plus" kind="primary" onClick=${() => setOpen("create")}>New secret<//>` : null;
  return html`<${PageHead} title="Secrets" below="Credentials of sources, named in requests. Encrypted, and shown to nobody." actions=${create} />
    <${Panel} flush><${PagedTable} pages=${pages} label="Secrets" columns=${columns} id=${(secret) => secret.name} empty=${html`<${Empty} title="No secrets" action=${create}>Sources that need no credentials need none.<//>`} /><//>
    ${open?.grants ? html`<${Grants} secret=${open.grants} close=${() => setOpen(null)} reload=${pages.reload} />` : open ? html`<${Edit} secret=${open.secret} close=${() => setOpen(null)} reload=${pages.reload} />` : null}`;
}
