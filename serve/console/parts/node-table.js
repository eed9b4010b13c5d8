// The nodes of a job: sorted and filtered by a table library, and only the rows in sight are in the page.

import { html, useEffect, useMemo, useRef, useState } from "../vendor/ui.js";
import {
  createTable,
  elementScroll,
  getCoreRowModel,
  getFilteredRowModel,
  getSortedRowModel,
  observeElementOffset,
  observeElementRect,
  Virtualizer,
} from "../vendor/table.js";
import { bytes, duration, percent, plural, rate, sum } from "../lib/format.js";
import { nodeKey } from "../lib/live-job.js";
import { Bar, Segments, State } from "./basics.js";
import { SplitBar } from "./provenance.js";
import { cellClass } from "./table.js";
import { Icon } from "./icons.js";

const ORDER = { failed: 0, running: 1, waiting: 2, done: 3 };

const COLUMNS = [
  { id: "node", accessorFn: (node) => node.node, label: "Node", lead: true, width: "17%",
    cell: (node) => html`<span class="clip" title=${node.node_id}>${node.node}</span>` },
  { id: "state", accessorFn: (node) => ORDER[node.state], label: "State", width: "11%", cell: (node) => html`<${State} state=${node.state} />` },
  { id: "share", accessorFn: (node) => node.share, label: "Progress", width: "20%",
    cell: (node) => html`<span class="bar-line"><${Bar} value=${node.share} label=${`Progress of ${node.node}`} tone=${node.state === "failed" ? "bad" : ""} /><span class="num">${percent(node.share)}</span></span>` },
  { id: "rate", accessorFn: (node) => node.rate, label: "Rate", num: true, width: "11%", cell: (node) => (node.state === "running" ? rate(node.rate) : "–") },
  { id: "eta", accessorFn: (node) => node.eta ?? Infinity, label: "Left", num: true, width: "9%", cell: (node) => (node.state === "running" ? duration(node.eta) : "–") },
  { id: "bytes", accessorFn: (node) => sum(node.bytes), label: "Received", num: true, width: "10%", cell: (node) => bytes(sum(node.bytes)) },
  { id: "from", accessorFn: (node) => (sum(node.bytes) ? node.bytes.origin / sum(node.bytes) : 0), label: "From", width: "11%", narrow: false,
    cell: (node) => html`<${SplitBar} of=${node.bytes} audit=${node.bytes_audit} label=${`${node.node} by source`} />` },
  { id: "seconds", accessorFn: (node) => node.seconds, label: "Time", num: true, width: "11%", cell: (node) => duration(node.seconds) },
];

function useTable(rows, search) {
  const [, count] = useState(0);
  const redraw = () => count((n) => n + 1);
  const [state, setState] = useState({ sorting: [{ id: "state", desc: false }] });
  const table = useMemo(() => createTable({
    data: [],
    columns: COLUMNS,
    state: {},
    getCoreRowModel: getCoreRowModel(),
    getSortedRowModel: getSortedRowModel(),
    getFilteredRowModel: getFilteredRowModel(),
    globalFilterFn: (row, _, text) => row.original.node.toLowerCase().includes(text) || row.original.node_id.startsWith(text),
    getColumnCanGlobalFilter: (column) => column.id === "node",
    onStateChange: () => redraw(),
    renderFallbackValue: null,
  }), []);
  table.setOptions((old) => ({
    ...old,
    data: rows,
    state: { ...table.initialState, ...state, globalFilter: search.toLowerCase() || undefined },
    onStateChange: (change) => setState((before) => {
      const next = typeof change === "function" ? change({ ...table.initialState, ...before }) : change;
      return { sorting: next.sorting };
    }),
  }));
  return table;
}

function useVirtual(frame, amount, high) {
  const [, count] = useState(0);
  const redraw = () => count((n) => n + 1);
  const virtual = useMemo(() => new Virtualizer({
    count: 0,
    getScrollElement: () => frame.current,
    estimateSize: () => high,
    observeElementRect,
    observeElementOffset,
    scrollToFn: elementScroll,
    onChange: () => redraw(),
    overscan: 8,
  }), []);
  virtual.setOptions({ ...virtual.options, count: amount, estimateSize: () => high });
  useEffect(() => virtual._didMount(), []);
  useEffect(() => virtual._willUpdate());
  return virtual;
}

/** `live`: whose nodes; `index`: of which URL. */
export function NodeTable({ live, index, jobEnded, actions }) {
  const frame = useRef(null);
  const [search, setSearch] = useState("");
  const [show, setShow] = useState("");
  const narrow = useMemo(() => matchMedia("(width <= 640px)").matches, []);
  const tick = live.tables.value;
  const { rows, counts } = useMemo(() => {
    const found = [];
    const states = { "": 0, running: 0, waiting: 0, failed: 0, done: 0 };
    for (const node of live.nodes.values()) {
      if (node.url_index !== index) continue;
      states[""] += 1;
      states[node.state] += 1;
      if (!show || node.state === show) found.push(node);
    }
    return { rows: found, counts: states };
  }, [tick, index, show]);
  const table = useTable(rows, search);
  const model = table.getRowModel().rows;
  const virtual = useVirtual(frame, model.length, narrow ? 214 : 36);
  const items = virtual.getVirtualItems();
  const above = items[0]?.start || 0;
  const below = items.length ? virtual.getTotalSize() - items.at(-1).end : 0;
  const shown = [["", "All"], ["running", "Running"], ["waiting", "Waiting"], ["failed", "Failed"], ["done", "Succeeded"]].filter(
    ([key]) => key === "" || counts[key] || key === show,
  );
  const all = [...COLUMNS, ...(actions ? [{ id: "act", label: "Actions", act: true, width: "96px", cell: actions }] : [])];
  return html`<div class="filters">
      <${Segments} label="Nodes by state" value=${show} onChange=${setShow} options=${shown.map(([key, text]) => [key, `${text} ${counts[key]}`])} />
      <label class="search"><span class="unseen">Find a node</span><${Icon} name="search" size=${14} />
        <input type="search" placeholder="Find a node" value=${search} onInput=${(event) => setSearch(event.currentTarget.value)} /></label>
      <span class="fine">${plural(model.length, "row")}</span>
    </div>
    <div class="virtual" ref=${frame} tabindex="0" role="region" aria-label="Nodes, scrollable">
      <table class="data" role="table" aria-label="Nodes of this job" aria-rowcount=${model.length + 1}>
        <thead role="rowgroup"><tr role="row">
          ${all.map((column) => html`<${NodeHeading} key=${column.id} column=${column} table=${table} />`)}
        </tr></thead>
        <tbody role="rowgroup">
          ${above ? html`<tr class="gap" aria-hidden="true"><td colspan=${all.length} style=${{ height: `${above}px` }}></td></tr>` : null}
          ${items.map((item) => {
            const row = model[item.index];
            if (!row) return null;
            return html`<tr role="row" key=${nodeKey(row.original)} aria-rowindex=${item.index + 2}>
              ${all.map((column) => html`<td role="cell" key=${column.id} class=${cellClass(column)} data-label=${column.label}>${column.cell(row.original, jobEnded)}</td>`)}
            </tr>`;
          })}
          ${below > 0 ? html`<tr class="gap" aria-hidden="true"><td colspan=${all.length} style=${{ height: `${below}px` }}></td></tr>` : null}
        </tbody>
      </table>
    </div>`;
}

function NodeHeading({ column, table }) {
  if (column.act) return html`<th role="columnheader" scope="col" class="act" style=${{ width: column.width }}><span class="unseen">${column.label}</span></th>`;
  const sorted = table.getColumn(column.id).getIsSorted();
  const direction = sorted === "asc" ? "ascending" : sorted === "desc" ? "descending" : "none";
  return html`<th role="columnheader" scope="col" class=${cellClass(column)} aria-sort=${direction} style=${{ width: column.width }}>
    <button type="button" class="sort" onClick=${() => table.getColumn(column.id).toggleSorting(sorted === "asc")}>
      ${column.label}<${Icon} name=${sorted === "asc" ? "up" : "down"} size=${11} />
    </button>
  </th>`;
}
