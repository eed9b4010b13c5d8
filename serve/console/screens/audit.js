// Who did what, when, from where.

import { html, useState } from "../vendor/ui.js";
import { absolute, short } from "../lib/format.js";
import { Button, Empty, Facts, Id, Panel, State, Time } from "../parts/basics.js";
import { Dialog } from "../parts/dialog.js";
import { PageHead } from "../parts/frame.js";
import { PagedTable, SearchBox, SelectFilter, useFilters, usePages } from "../parts/table.js";

const TYPES = [["", "any"], ..."job task node schedule secret user role token session config webhook".split(" ").map((type) => [type, type])];
const SINCE = [["", "any time"], ["3600", "last hour"], ["86400", "last day"], ["604800", "last week"], ["2592000", "last 30 days"]];

const columns = (look) => [
  { key: "at", label: "When", sort: "at", cell: (entry) => html`<${Time} at=${entry.at} />` },
  { key: "action", label: "Action", lead: true, cell: (entry) => html`<code>${entry.action}</code>` },
  { key: "actor", label: "Who", cell: (entry) => html`${entry.actor || html`<span class="faint">nobody</span>`} <span class="faint">${entry.via}</span>` },
  { key: "what", label: "What", cell: (entry) => html`${entry.resource_type} <code title=${entry.resource_id}>${short(entry.resource_id, 12)}</code>` },
  { key: "address", label: "From", cell: (entry) => html`<code>${entry.address}</code>` },
  { key: "outcome", label: "Outcome", cell: (entry) => html`<${State} state=${entry.outcome} />` },
  { key: "act", label: "Details", act: true, cell: (entry) => html`<${Button} onClick=${() => look(entry)} aria-label=${`Details of entry ${entry.id}`}>Details<//>` },
];

export function Audit() {
  const [filters, change] = useFilters();
  const { since, ...rest } = filters;
  const from = since ? new Date(Math.floor(Date.now() / 60_000) * 60_000 - since * 1000).toISOString() : "";
  const pages = usePages("/audit", { ...rest, since: from });
  const [entry, setEntry] = useState(null);
  return html`<${PageHead} title="Audit" below="Who did what, when, from where. Refusals too." actions=${html`<${Button} icon="retry" onClick=${pages.reload}>Reload<//>`} />
    <${Panel} flush>
      <div class="filters">
        <${SearchBox} label="Who" value=${filters.actor} onChange=${(actor) => change({ actor })} />
        <${SearchBox} label="Action" placeholder="user.* or job.create" value=${filters.action} onChange=${(action) => change({ action })} />
        <${SelectFilter} label="What" value=${filters.resource_type} onChange=${(type) => change({ resource_type: type })} options=${TYPES} />
        <${SearchBox} label="Its id" value=${filters.resource_id} onChange=${(id) => change({ resource_id: id })} />
        <${SelectFilter} label="When" value=${since} onChange=${(value) => change({ since: value })} options=${SINCE} />
        <${SelectFilter} label="Outcome" value=${filters.outcome} onChange=${(outcome) => change({ outcome })} options=${[["", "any"], ["ok", "ok"], ["refused", "refused"]]} />
      </div>
      <${PagedTable} pages=${pages} label="Audit" columns=${columns(setEntry)} sort=${filters.sort || "-at"} onSort=${(sort) => change({ sort })} empty=${html`<${Empty} title="No matches for these filters" />`} />
    <//>
    ${entry ? html`<${Dialog} title=${`${entry.action}, ${absolute(entry.at)}`} onClose=${() => setEntry(null)} wide>
      <div class="content">
        <${Facts} items=${[
          ["Who", `${entry.actor || "nobody"} by ${entry.via || "nothing"}`],
          ["From", html`<code>${entry.address}</code>`],
          ["What", html`${entry.resource_type} <${Id} id=${entry.resource_id} length=${24} />`],
          ["Request", html`<${Id} id=${entry.request_id} length=${24} what="request id" />`],
          entry.token_id && ["Token", html`<${Id} id=${entry.token_id} what="token id" />`],
          ["Outcome", html`<${State} state=${entry.outcome} />`],
        ]} />
        <pre class="document" tabindex="0" aria-label="Details">${JSON.stringify(entry.detail, null, 2)}</pre>
      </div>
    <//>` : null}`;
}
