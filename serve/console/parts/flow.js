// Peer traffic: senders on the left, receivers on the right, the widths are bytes.

import { html, useMemo, useState } from "../vendor/ui.js";
import { sankey, sankeyLinkHorizontal } from "../vendor/flow.js";
import { bytes, percent, plural } from "../lib/format.js";
import { Empty, Segments } from "./basics.js";
import { DataTable } from "./table.js";

const MOST = 12;
/** Width, room for labels on either side, letters of a name: scaled text would be unreadable on a phone. */
const WIDE = [760, 150, 16];
const NARROW = [400, 118, 11];
const OTHERS = "others";
const EXTRA = { origin: ["Origin", "--origin"], cache: ["Own cache", "--cache"], object_store: ["Object store", "--object-store"] };
const path = sankeyLinkHorizontal();

/** All flows: those between nodes, and what each node had from elsewhere. */
export function flowsOf(edges, nodes) {
  const found = edges.map((edge) => ({
    from: edge.parent,
    fromName: edge.parent_node || edge.parent.slice(0, 8),
    to: edge.child,
    toName: edge.child_node || edge.child.slice(0, 8),
    bytes: edge.bytes,
    kind: "peers",
  }));
  for (const node of nodes) {
    for (const kind of Object.keys(EXTRA)) {
      if (node.bytes[kind]) {
        found.push({ from: kind, fromName: EXTRA[kind][0], to: node.node_id, toName: node.node, bytes: node.bytes[kind], kind });
      }
    }
  }
  return found.filter((flow) => flow.bytes > 0);
}

/** The biggest of one side by name; the others together. */
function biggest(flows, side) {
  const totals = new Map();
  for (const flow of flows) totals.set(flow[side], (totals.get(flow[side]) || 0) + flow.bytes);
  const order = [...totals].sort((a, b) => b[1] - a[1]).map(([id]) => id);
  return new Set(order.length > MOST ? order.slice(0, MOST - 1) : order);
}

function layout(flows, [width, room]) {
  const senders = biggest(flows.filter((flow) => flow.kind === "peers"), "from");
  const receivers = biggest(flows, "to");
  const links = new Map();
  const names = new Map();
  const hidden = { from: new Set(), to: new Set() };
  for (const flow of flows) {
    const from = flow.kind !== "peers" || senders.has(flow.from) ? flow.from : OTHERS;
    const to = receivers.has(flow.to) ? flow.to : OTHERS;
    if (from === OTHERS) hidden.from.add(flow.from);
    if (to === OTHERS) hidden.to.add(flow.to);
    names.set(`from ${from}`, { name: flow.fromName, kind: flow.kind });
    names.set(`to ${to}`, { name: flow.toName, kind: "node" });
    const key = `${from} ${to} ${flow.kind}`;
    const link = links.get(key) || { source: `from ${from}`, target: `to ${to}`, value: 0, kind: flow.kind };
    link.value += flow.bytes;
    links.set(key, link);
  }
  if (hidden.from.size) names.set(`from ${OTHERS}`, { name: plural(hidden.from.size, "other"), kind: "peers" });
  if (hidden.to.size) names.set(`to ${OTHERS}`, { name: plural(hidden.to.size, "other"), kind: "node" });
  const sides = [...names.keys()].filter((key) => key.startsWith("from")).length;
  const high = Math.max(sides, names.size - sides) * 30 + 20;
  const graph = sankey()
    .nodeId((node) => node.id)
    .nodeWidth(10)
    .nodePadding(15)
    .nodeSort((a, b) => b.value - a.value)
    .extent([
      [room, 6],
      [width - room, high - 6],
    ])({ nodes: [...names].map(([id, node]) => ({ id, ...node })), links: [...links.values()].map((link) => ({ ...link })) });
  return { ...graph, high };
}

const colour = (kind) => `var(${kind === "peers" ? "--peers" : kind === "node" ? "--line-strong" : EXTRA[kind][1]})`;

export function Flow({ flows }) {
  const [view, setView] = useState("picture");
  const total = flows.reduce((all, flow) => all + flow.bytes, 0);
  if (!total) return html`<${Empty} title="No traffic yet">As soon as a node has its first pieces, the flow shows here.<//>`;
  return html`<div class="stack">
    <div><${Segments} label="How to show it" value=${view} onChange=${setView} options=${[["picture", "Picture"], ["table", "Table"]]} /></div>
    ${view === "picture" ? html`<${Picture} flows=${flows} total=${total} />` : html`<${FlowTable} flows=${flows} total=${total} />`}
  </div>`;
}

function Picture({ flows, total }) {
  const size = matchMedia("(width <= 640px)").matches ? NARROW : WIDE;
  const graph = useMemo(() => layout(flows, size), [flows, size]);
  const clipped = (name) => (name.length > size[2] ? `${name.slice(0, size[2] - 1)}…` : name);
  return html`<div class="flow">
    <svg viewBox=${`0 0 ${size[0]} ${graph.high}`} role="img" aria-label="Senders on the left, receivers on the right. The table has the same in numbers.">
      ${graph.links.map(
        (link) => html`<path class="link" d=${path(link)} stroke=${colour(link.kind)} stroke-width=${Math.max(link.width, 1)}>
          <title>${`${link.source.name} → ${link.target.name}: ${bytes(link.value)}`}</title>
        </path>`,
      )}
      ${graph.nodes.map((node) => {
        const left = node.id.startsWith("from");
        return html`<rect x=${node.x0} y=${node.y0} width=${node.x1 - node.x0} height=${Math.max(node.y1 - node.y0, 2)} rx="2" fill=${colour(node.kind)} />
          <text x=${left ? node.x0 - 9 : node.x1 + 9} y=${(node.y0 + node.y1) / 2} dy="0.35em" text-anchor=${left ? "end" : "start"}>
            ${clipped(node.name)} · ${percent(node.value / total)}
            <title>${`${node.name}: ${bytes(node.value)}`}</title>
          </text>`;
      })}
    </svg>
  </div>`;
}

const COLUMNS = (total) => [
  { key: "from", label: "From", lead: true, cell: (flow) => flow.fromName },
  { key: "to", label: "To", cell: (flow) => flow.toName },
  { key: "bytes", label: "Bytes", num: true, cell: (flow) => bytes(flow.bytes) },
  { key: "share", label: "Share", num: true, cell: (flow) => percent(flow.bytes / total, 1) },
];

function FlowTable({ flows, total }) {
  const rows = useMemo(() => [...flows].sort((a, b) => b.bytes - a.bytes).slice(0, 100), [flows]);
  return html`<${DataTable} label="Peer traffic" columns=${COLUMNS(total)} rows=${rows} id=${(flow) => `${flow.from} ${flow.to} ${flow.kind}`} />
    ${flows.length > rows.length ? html`<p class="fine">The ${rows.length} biggest of ${flows.length}.</p>` : null}`;
}
