// The nodes of the cluster, and what may be done with them.

import { html, Link } from "../vendor/ui.js";
import { ask, may, post } from "../lib/api.js";
import { bytes, count, percent, rate } from "../lib/format.js";
import { useEvery, useThrottled } from "../lib/hooks.js";
import { useNews } from "../lib/news.js";
import { Bar, Button, Empty, Panel, State, Tag, Time } from "../parts/basics.js";
import { confirm } from "../parts/dialog.js";
import { PageHead } from "../parts/frame.js";
import { PagedTable, SearchBox, SelectFilter, useFilters, usePages } from "../parts/table.js";
import { say } from "../parts/toasts.js";

const any = (values) => [["", "any"], ...values.map((value) => [value, value])];
const STATES = any(["healthy", "starting", "unhealthy", "draining", "drained", "missing", "dead"]);

export function NodeState({ node }) {
  return html`<span class="tags">
    <${State} state=${node.alive ? node.state : "dead"} />
    ${node.cordoned ? html`<${Tag} tone="warn">cordoned<//>` : null}
    ${node.draining && node.state !== "draining" ? html`<${Tag} tone="warn">draining<//>` : null}
  </span>`;
}

/** `done` is called with the node as it is afterwards, or null when it is gone. */
export function nodeActions(node, done, leave = false) {
  if (!may("nodes:write")) return null;
  const act = (verb, said, body) => async (note) => {
    const after = await post(`/nodes/${node.node_id}/${verb}`, body ? { note } : undefined);
    say(`${node.shown_name}: ${said}`);
    done(after);
  };
  const why = "Why (seen by everybody)";
  const found = [];
  if (node.cordoned) {
    found.push(html`<${Button} onClick=${() => confirm(`Uncordon ${node.shown_name}?`, { text: "It is chosen for new work again.", action: "Uncordon", tone: "primary", act: act("uncordon", "uncordoned") })}>Uncordon<//>`);
  } else {
    found.push(html`<${Button} onClick=${() => confirm(`Cordon ${node.shown_name}?`, { text: "It is chosen for nothing new unless it is named. What it does goes on.", action: "Cordon", tone: "primary", content: why, act: act("cordon", "cordoned", true) })}>Cordon<//>`);
  }
  if (node.draining) {
    found.push(html`<${Button} onClick=${() => confirm(`Stop draining ${node.shown_name}?`, { text: "It feeds others again.", action: "Stop draining", tone: "primary", act: act("undrain", "draining stopped") })}>Undrain<//>`);
  } else if (node.alive) {
    found.push(html`<${Button} onClick=${() => confirm(`Drain ${node.shown_name}?`, { text: "It finishes what it has begun, feeds nobody any more, and takes nothing new.", action: "Drain", content: why, act: act("drain", "draining", true) })}>Drain<//>`);
  }
  if (!node.alive && leave) {
    found.push(html`<${Button} icon="trash" kind="danger" onClick=${() =>
      confirm(`Forget ${node.shown_name}?`, {
        text: "It is dead; its record and its note go.",
        action: "Forget",
        act: async () => {
          await ask("DELETE", `/nodes/${node.node_id}`);
          say(`${node.shown_name}: forgotten`);
          done(null);
        },
      })}>Forget<//>`);
  }
  return found;
}

const columns = (reload) => [
  { key: "name", label: "Node", lead: true, sort: "name", cell: (node) => html`<span class="two clip"><${Link} href=${`/nodes/${node.node_id}`}>${node.shown_name}<//><small>${node.address}</small></span>` },
  { key: "state", label: "State", sort: "state", cell: (node) => html`<${NodeState} node=${node} />${node.note ? html`<small title=${node.note}>${node.note}</small>` : null}` },
  { key: "role", label: "Role", cell: (node) => (node.role === "seed" ? html`<${Tag} tone="info">seed<//>` : "peer") },
  { key: "in", label: "Receives", num: true, cell: (node) => rate(node.receive_rate) },
  { key: "out", label: "Sends", num: true, cell: (node) => rate(node.send_rate) },
  { key: "tasks", label: "Tasks", num: true, cell: (node) => count(node.active_tasks) },
  { key: "store", label: "Store", cell: (node) => html`<span class="bar-line"><${Bar} value=${node.store_quota ? node.store_used / node.store_quota : 0} label=${`Store of ${node.shown_name}`} tone=${node.store_used > node.store_quota * 0.95 ? "warn" : ""} /><span title=${`${bytes(node.store_used)} of ${bytes(node.store_quota)}`}>${node.store_quota ? percent(node.store_used / node.store_quota) : "–"}</span></span>` },
  { key: "disk", label: "Disk free", num: true, cell: (node) => bytes(node.disk_free) },
  { key: "seen", label: "Seen", num: true, narrow: false, cell: (node) => html`<${Time} at=${node.last_seen_at} />` },
  ...(may("nodes:write") ? [{ key: "act", label: "Actions", act: true, cell: (node) => html`<span class="row-actions">${nodeActions(node, reload)}</span>` }] : []),
];

export function Nodes() {
  const [filters, change] = useFilters();
  const pages = usePages("/nodes", filters, 100);
  const reload = useThrottled(pages.reload, 400);
  useNews(["node."], reload);
  // Rates come on no stream.
  useEvery(5, reload);
  return html`<${PageHead} title="Nodes" below="Every node of the cluster, and the peer on it." />
    <${Panel} flush>
      <div class="filters">
        <${SearchBox} label="Name" value=${filters.name} onChange=${(name) => change({ name })} />
        <${SelectFilter} label="State" value=${filters.state} onChange=${(state) => change({ state })} options=${STATES} />
        <${SelectFilter} label="Role" value=${filters.role} onChange=${(role) => change({ role })} options=${any(["seed", "peer"])} />
        <${SelectFilter} label="Alive" value=${filters.alive} onChange=${(alive) => change({ alive })} options=${[["", "any"], ["true", "yes"], ["false", "no"]]} />
        <${SelectFilter} label="Cordoned" value=${filters.cordoned} onChange=${(cordoned) => change({ cordoned })} options=${[["", "any"], ["true", "yes"], ["false", "no"]]} />
      </div>
      <${PagedTable} pages=${pages} label="Nodes" columns=${columns(pages.reload)} id=${(node) => node.node_id}
        sort=${filters.sort || "name"} onSort=${(sort) => change({ sort })}
        empty=${html`<${Empty} title=${Object.keys(filters).length ? "No matches for these filters" : "No nodes yet"}>Nodes appear as they join the Ray cluster.<//>`} />
    <//>`;
}
