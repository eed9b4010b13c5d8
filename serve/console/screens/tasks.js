// What lies in the stores of the nodes.

import { html, Link } from "../vendor/ui.js";
import { bytes, count, lastPart } from "../lib/format.js";
import { useThrottled } from "../lib/hooks.js";
import { useNews } from "../lib/news.js";
import { Empty, Id, Panel, State } from "../parts/basics.js";
import { PageHead } from "../parts/frame.js";
import { PagedTable, SearchBox, useFilters, usePages } from "../parts/table.js";

const COLUMNS = [
  { key: "url", label: "Source", lead: true, cell: (task) => html`<span class="two clip"><${Link} href=${`/tasks/${encodeURIComponent(task.task_id)}`}>${lastPart(task.url)}<//><small title=${task.url}>${task.url}</small></span>` },
  { key: "id", label: "Task", cell: (task) => html`<${Id} id=${task.task_id} what="task id" />` },
  { key: "size", label: "Size", num: true, cell: (task) => bytes(task.size) },
  { key: "entries", label: "Entries", num: true, cell: (task) => (task.directory ? count(task.entries) : "file") },
  { key: "pieces", label: "Pieces", num: true, narrow: false, cell: (task) => count(task.pieces) },
  { key: "complete", label: "Complete on", num: true, cell: (task) => count(task.complete) },
  { key: "partial", label: "Partial on", num: true, cell: (task) => count(task.partial) },
  { key: "active", label: "Now", cell: (task) => (task.active ? html`<${State} state="running" label=${`${task.active} active`} />` : html`<span class="faint">idle</span>`) },
];

export function Tasks() {
  const [filters, change] = useFilters();
  const pages = usePages("/tasks", filters);
  const reload = useThrottled(pages.reload, 500);
  useNews(["task.", "job."], reload);
  return html`<${PageHead} title="Tasks" below="Each is one version of a source, and lies in the stores of nodes." />
    <${Panel} flush>
      <div class="filters">
        <${SearchBox} label="URL" value=${filters.url} onChange=${(url) => change({ url })} />
        <${SearchBox} label="Node id" value=${filters.node_id} onChange=${(node) => change({ node_id: node })} />
      </div>
      <${PagedTable} pages=${pages} label="Tasks" columns=${COLUMNS} id=${(task) => task.task_id}
        empty=${html`<${Empty} title=${Object.keys(filters).length ? "No matches for these filters" : "The stores are empty"}>What a distribution or preheat brings to the nodes is seen here.<//>`} />
    <//>`;
}
