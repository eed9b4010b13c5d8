// Who else is told of events.

import { html, Link, useState } from "../vendor/ui.js";
import { ask, may, post } from "../lib/api.js";
import { useThrottled } from "../lib/hooks.js";
import { useNews } from "../lib/news.js";
import { Button, Empty, Panel, State, Tag, Time } from "../parts/basics.js";
import { FormDialog, OnceDialog } from "../parts/dialog.js";
import { Check, TextField } from "../parts/form.js";
import { PageHead } from "../parts/frame.js";
import { PagedTable, usePages } from "../parts/table.js";
import { say } from "../parts/toasts.js";

const SUGGESTED = ["job.*", "job.ended", "job.node_failed", "node.*", "config.*", "schedule.*", "task.*"];

export function WebhookDialog({ webhook, close, done }) {
  const [name, setName] = useState(webhook?.name || "");
  const [url, setUrl] = useState(webhook?.url || "");
  const [types, setTypes] = useState((webhook?.types || []).join("\n"));
  const [enabled, setEnabled] = useState(webhook?.enabled ?? true);
  const lines = types.split("\n").map((line) => line.trim()).filter(Boolean);
  const submit = async () => {
    const body = { url, types: lines, enabled };
    if (webhook) done(await ask("PUT", `/webhooks/${webhook.id}`, { body, version: webhook.version }));
    else done(await post("/webhooks", { ...body, name }));
    say(`Saved ${name}`);
  };
  return html`<${FormDialog} title=${webhook ? `Change ${webhook.name}` : "New webhook"} action="Save" onClose=${close} submit=${submit}>
    ${webhook ? null : html`<${TextField} label="Name" value=${name} onChange=${setName} required maxlength="128" />`}
    <${TextField} label="URL" type="url" value=${url} onChange=${setUrl} required placeholder="https://host/hooks/dragonfly" />
    <${TextField} label="Events" optional lines=${3} value=${types} onChange=${setTypes} spellcheck="false" hint="One a line, such as job.ended or node.*. Without any: all." />
    <ul class="tags" aria-label="Available events">
      ${SUGGESTED.filter((type) => !lines.includes(type)).map((type) => html`<li><button type="button" class="tag idle chip" onClick=${() => setTypes([...lines, type].join("\n"))} aria-label=${`Add ${type}`}>+ ${type}</button></li>`)}
    </ul>
    <${Check} label="Enabled" checked=${enabled} onChange=${setEnabled} />
  <//>`;
}

export const webhookState = (webhook) => (!webhook.enabled ? "disabled" : webhook.failing_since ? "failing" : "enabled");

const COLUMNS = [
  { key: "name", label: "Name", lead: true, cell: (webhook) => html`<span class="two clip"><${Link} href=${`/webhooks/${webhook.id}`}>${webhook.name}<//><small title=${webhook.url}>${webhook.url}</small></span>` },
  { key: "state", label: "State", cell: (webhook) => html`<${State} state=${webhookState(webhook)} />${webhook.failing_since ? html`<small>since <${Time} at=${webhook.failing_since} /></small>` : null}` },
  { key: "types", label: "Events", cell: (webhook) => html`<span class="tags">${webhook.types.length ? webhook.types.map((type) => html`<${Tag}>${type}<//>`) : "all"}</span>` },
  { key: "success", label: "Last delivered", num: true, cell: (webhook) => html`<${Time} at=${webhook.last_success_at} />` },
  { key: "updated", label: "Changed", num: true, cell: (webhook) => html`<${Time} at=${webhook.updated_at} />` },
];

export function Webhooks() {
  const pages = usePages("/webhooks", {});
  const [creating, setCreating] = useState(false);
  const [made, setMade] = useState(null);
  const reload = useThrottled(pages.reload, 400);
  useNews(["webhook."], reload);
  const create = may("webhooks:write") ? html`<${Button} icon="plus" kind="primary" onClick=${() => setCreating(true)}>New webhook<//>` : null;
  return html`<${PageHead} title="Webhooks" below="Events, signed and sent to where they are wanted; again until they arrive." actions=${create} />
    <${Panel} flush><${PagedTable} pages=${pages} label="Webhooks" columns=${COLUMNS} empty=${html`<${Empty} title="No webhooks" action=${create}>Tell a chat or a pipeline when a distribution ends.<//>`} /><//>
    ${creating ? html`<${WebhookDialog} close=${() => setCreating(false)} done=${(webhook) => {
      setMade(webhook);
      pages.reload();
    }} />` : null}
    ${made && !creating ? html`<${OnceDialog} title=${`Signing key of ${made.name}`} text="Deliveries are signed with it. It is shown this once." secret=${made.signing_key} onClose=${() => setMade(null)} />` : null}`;
}
