// One version of a source: who holds it, what is in it, and what may be done with it.

import { html, Link, signal, useEffect, useLocation, useMemo, useState } from "../vendor/ui.js";
import { ask, get, may, post } from "../lib/api.js";
import { absolute, bytes, count, lastPart, percent, plural } from "../lib/format.js";
import { useResource, useThrottled } from "../lib/hooks.js";
import { CellGrid } from "../lib/live-job.js";
import { useNews } from "../lib/news.js";
import { Bar, Button, Empty, Id, Load, Panel, ProblemBox, State, Time } from "../parts/basics.js";
import { confirm, Dialog } from "../parts/dialog.js";
import { Flow, flowsOf } from "../parts/flow.js";
import { SelectField } from "../parts/form.js";
import { PageHead } from "../parts/frame.js";
import { HeatMap } from "../parts/heat-map.js";
import { DataTable } from "../parts/table.js";
import { say } from "../parts/toasts.js";

const PAGE = 100;
const FOR = [["", "for good"], ["3600", "an hour"], ["86400", "a day"], ["604800", "a week"], ["2592000", "30 days"]];

export function Task({ id }) {
  const path = `/tasks/${encodeURIComponent(decodeURIComponent(id))}`;
  const found = useResource(path);
  const [, navigate] = useLocation();
  const reload = useThrottled(found.reload, 500);
  useNews(["task.", "job."], reload);
  return html`<${Load} of=${found} rows=${8}>${(task) => {
    const below = html`${task.active ? html`<${State} state="running" label=${`${task.active} active`} />` : null}<${Id} id=${task.task_id} length=${12} what="task id" />
      <span>${bytes(task.size)}</span><span>${plural(task.pieces, "piece")}</span>${task.directory ? html`<span>${plural(task.entries, "entry", "entries")}</span>` : null}`;
    return html`<${PageHead} title=${lastPart(task.url)} above=${[["/tasks", "Tasks"]]} below=${below}
        actions=${may("tasks:write") ? html`<${Actions} task=${task} path=${path} reload=${found.reload} gone=${() => navigate("/tasks")} />` : null} />
      <div class="stack">
        <p class="fine"><code>${task.url}</code></p>
        ${task.banned.length ? html`<${ProblemBox} error=${{ title: `${plural(task.banned.length, "node")} banned for this task`, detail: `They sent bytes that do not match their digests: ${task.banned.join(", ")}` }} />` : null}
        <${Availability} path=${path} task=${task} />
        <div class="columns wide-first">
          <${Holders} task=${task} />
          <${Pins} task=${task} />
        </div>
        <${Edges} path=${path} />
        <${Entries} path=${path} />
      </div>`;
  }}<//>`;
}

function Actions({ task, path, reload, gone }) {
  const [pinning, setPinning] = useState(false);
  const unpin = async () => {
    const { nodes } = await ask("DELETE", `${path}/pin`);
    say(`Unpinned on ${plural(nodes, "node")}`);
    reload();
  };
  const evict = async () => {
    const freed = await post(`${path}/evict`, {});
    say(`Freed ${bytes(freed.bytes)}`);
    gone();
  };
  return html`
    <${Button} icon="pin" onClick=${() => setPinning(true)}>Pin<//>
    ${task.pins.length ? html`<${Button} onClick=${() => confirm("Unpin it?", { text: "Your pin goes; then the stores may evict it when they need the space.", action: "Unpin", tone: "primary", act: unpin })}>Unpin<//>` : null}
    <${Button} icon="trash" kind="danger" onClick=${() =>
      confirm("Evict it everywhere?", {
        text: `The copies of ${plural(task.holders.length, "node")} go from the stores. Outputs at their destinations stay.`,
        action: "Evict",
        act: evict,
      })}>Evict<//>
    ${pinning ? html`<${PinDialog} path=${path} close=${() => setPinning(false)} reload=${reload} />` : null}`;
}

function PinDialog({ path, close, reload }) {
  const [ttl, setTtl] = useState("");
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState(null);
  const submit = async (event) => {
    event.preventDefault();
    setBusy(true);
    try {
      const { nodes } = await post(`${path}/pin`, { ttl: ttl ? Number(ttl) : null });
      say(`Pinned on ${plural(nodes, "node")}`);
      reload();
      close();
    } catch (caught) {
      setError(caught);
      setBusy(false);
    }
  };
  return html`<${Dialog} title="Pin it on all holders" onClose=${close}>
    <form class="content" onSubmit=${submit}>
      <p>Pinned content is not evicted, even when a store is full.</p>
      <${SelectField} label="How long" value=${ttl} onChange=${setTtl} options=${FOR} />
      <${ProblemBox} error=${error} />
      <footer><${Button} onClick=${close}>Back<//><${Button} type="submit" kind="primary" busy=${busy}>Pin<//></footer>
    </form>
  <//>`;
}

function Availability({ path, task }) {
  const cells = useResource(`${path}/cells?cells=${Math.max(1, Math.min(task.pieces, 768))}`);
  const names = useMemo(() => new Map(task.holders.map((holder) => [holder.node_id, holder.node])), [task]);
  const shown = useMemo(() => {
    if (!cells.data) return null;
    const grid = new CellGrid(cells.data.cells, cells.data.pieces);
    for (const [id, text] of Object.entries(cells.data.nodes)) grid.put(id, text);
    return { grid, live: { onCells: new Set(), summaries: signal(0) } };
  }, [cells.data]);
  const share = new Map(task.holders.map((holder) => [holder.node_id, holder.share]));
  return html`<${Panel} title="Pieces on nodes" meta="a row a node, from the first piece to the last">
    <${Load} of=${cells} rows=${3}>${() =>
      shown.grid.ids.length
        ? html`<${HeatMap} live=${shown.live} grid=${shown.grid} nameOf=${(id) => names.get(id) || id.slice(0, 8)} stateOf=${(id) => percent(share.get(id))} />`
        : html`<${Empty} title="Not stored on any node" />`}<//>
  <//>`;
}

function Holders({ task }) {
  const [most, setMost] = useState(PAGE);
  const sorted = useMemo(() => [...task.holders].sort((a, b) => b.share - a.share || a.node.localeCompare(b.node)), [task]);
  const columns = [
    { key: "node", label: "Node", lead: true, cell: (holder) => html`<${Link} href=${`/nodes/${holder.node_id}`}>${holder.node}<//>` },
    { key: "share", label: "Holds", cell: (holder) => html`<span class="bar-line"><${Bar} value=${holder.share} label=${`Held by ${holder.node}`} /><span>${percent(holder.share)}</span></span>` },
    { key: "bytes", label: "Bytes", num: true, cell: (holder) => bytes(Math.round(holder.share * task.size)) },
  ];
  return html`<${Panel} title="Holders" meta=${plural(task.holders.length, "node")} flush>
    ${sorted.length ? html`<${DataTable} label="Holders" columns=${columns} rows=${sorted.slice(0, most)} id=${(holder) => holder.node_id} />` : html`<${Empty} title="Not stored on any node" />`}
    ${sorted.length > most ? html`<div class="pager"><${Button} onClick=${() => setMost(most + PAGE)}>Show more<//></div>` : null}
  <//>`;
}

function Pins({ task }) {
  const columns = [
    { key: "node", label: "Node", lead: true, cell: (pin) => pin.node },
    { key: "owner", label: "By", cell: (pin) => pin.owner },
    { key: "until", label: "Until", num: true, cell: (pin) => html`<${Time} at=${pin.expires_at} none="for good" />` },
  ];
  return html`<${Panel} title="Pins" meta=${task.pins.length ? plural(task.pins.length, "pin") : null} flush>
    ${task.pins.length
      ? html`<${DataTable} label="Pins" columns=${columns} rows=${task.pins.slice(0, PAGE)} id=${(pin) => `${pin.node_id} ${pin.owner}`} />`
      : html`<${Empty} title="Not pinned">The stores may evict it when they need the space.<//>`}
  <//>`;
}

function Edges({ path }) {
  const found = useResource(`${path}/edges`);
  const flows = useMemo(() => flowsOf(found.data || [], []), [found.data]);
  return html`<${Panel} title="Peer traffic"><${Load} of=${found} rows=${3}>${() => html`<${Flow} flows=${flows} />`}<//><//>`;
}

const ENTRY = [
  { key: "path", label: "Path", lead: true, cell: (entry) => html`<code>${entry.path}</code>${entry.target ? html` <span class="faint">→ ${entry.target}</span>` : null}` },
  { key: "kind", label: "Kind", cell: (entry) => entry.kind },
  { key: "size", label: "Size", num: true, cell: (entry) => bytes(entry.size) },
  { key: "mtime", label: "Modified", cell: (entry) => (entry.mtime ? absolute(entry.mtime) : "–") },
  { key: "version", label: "Version", narrow: false, cell: (entry) => html`<code class="clip two" title=${entry.version}>${entry.version}</code>` },
];

function Entries({ path }) {
  const [pages, setPages] = useState({ total: 0, items: [] });
  const [error, setError] = useState(null);
  const more = (offset) =>
    get(`${path}/entries?offset=${offset}&limit=${PAGE}`).then(
      (page) => setPages((old) => ({ total: page.total, items: offset ? [...old.items, ...page.items] : page.items })),
      setError,
    );
  useEffect(() => void more(0), [path]);
  return html`<${Panel} title="Entries" meta=${count(pages.total)} flush>
    <${ProblemBox} error=${error} again=${() => more(pages.items.length)} />
    ${pages.items.length ? html`<${DataTable} label="Entries" columns=${ENTRY} rows=${pages.items} id=${(entry) => entry.path} />` : null}
    ${pages.items.length < pages.total ? html`<div class="pager"><${Button} onClick=${() => more(pages.items.length)}>Show more<//></div>` : null}
  <//>`;
}
