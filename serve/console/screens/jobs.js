// Distributions, or preheats: the list.

import { html, Link } from "../vendor/ui.js";
import { may } from "../lib/api.js";
import { bytes, count, duration, lastPart, percent, selector } from "../lib/format.js";
import { useEvery, useThrottled } from "../lib/hooks.js";
import { useNews } from "../lib/news.js";
import { Bar, Empty, Panel, State, Time } from "../parts/basics.js";
import { PageHead } from "../parts/frame.js";
import { Icon } from "../parts/icons.js";
import { PagedTable, SearchBox, SelectFilter, useFilters, usePages } from "../parts/table.js";

export const KINDS = {
  distribution: { many: "Distributions", one: "distribution", path: "/distributions", what: "Content onto nodes: to a path, or into their stores." },
  preheat: { many: "Preheats", one: "preheat", path: "/preheats", what: "Content into the stores of nodes, before anybody asks for it." },
};
const STATES = ["", "queued", "running", "succeeded", "partial", "failed", "cancelled"].map((state) => [state, state || "any"]);
const SINCE = [["", "any time"], ["3600", "last hour"], ["86400", "last day"], ["604800", "last week"]];

const columns = (path) => [
  { key: "name", label: "Name", lead: true, sort: "name", cell: (job) => html`<span class="two clip"><${Link} href=${`${path}/${job.id}`}>${job.name || lastPart(job.urls[0])}<//><small title=${job.urls.join("\n")}>${job.urls[0]}${job.urls.length > 1 ? ` and ${job.urls.length - 1} more` : ""}</small></span>` },
  { key: "state", label: "State", sort: "state", cell: (job) => html`<${State} state=${job.state} />` },
  { key: "progress", label: "Progress", cell: (job) => html`<${Progress} job=${job} />` },
  { key: "nodes", label: "Nodes", num: true, cell: (job) => html`<span title=${selector(job.nodes)}>${count(job.progress.nodes_done)} / ${count(job.progress.nodes_total)}</span>` },
  { key: "size", label: "Size", num: true, cell: (job) => bytes(job.size) },
  { key: "seconds", label: "Time", num: true, cell: (job) => duration(job.seconds) },
  { key: "by", label: "By", cell: (job) => job.created_by.name },
  { key: "created", label: "Created", num: true, sort: "created_at", cell: (job) => html`<${Time} at=${job.created_at} />` },
];

function Progress({ job }) {
  const { progress } = job;
  if (job.state === "queued") return html`<span class="faint">–</span>`;
  const share = progress.bytes_total ? progress.bytes_done / progress.bytes_total : 0;
  if (job.state !== "running" && job.error) return html`<span class="clip two faint" title=${job.error.message}>${job.error.message}</span>`;
  return html`<span class="bar-line"><${Bar} value=${share} label=${`Progress of ${job.name || lastPart(job.urls[0])}`} tone=${progress.nodes_failed ? "warn" : ""} /><span>${percent(share)}</span></span>`;
}

export function Jobs({ kind }) {
  const { many, one, path, what } = KINDS[kind];
  const [filters, change] = useFilters();
  const { since, ...rest } = filters;
  // To the minute: else each look at the clock would be another list.
  const from = since ? new Date(Math.floor(Date.now() / 60_000) * 60_000 - since * 1000).toISOString() : "";
  const pages = usePages(path, { ...rest, since: from });
  const reload = useThrottled(pages.reload, 400);
  useNews(["job."], reload);
  useEvery(3, reload, Boolean(pages.rows?.some((job) => job.state === "running")));
  const filtered = Object.keys(filters).some((key) => key !== "sort");
  const create = may("jobs:write") ? html`<${Link} class="button primary" href=${`${path}/new`}><${Icon} name="plus" />New ${one}<//>` : null;
  const empty = filtered
    ? html`<${Empty} title="No matches for these filters" />`
    : html`<${Empty} title=${`No ${many.toLowerCase()} yet`} action=${create}>${what}<//>`;
  return html`<${PageHead} title=${many} below=${what} actions=${create} />
    <${Panel} flush>
      <div class="filters">
        <${SearchBox} label="Name" placeholder="Name" value=${filters.name} onChange=${(name) => change({ name })} />
        <${SearchBox} label="URL" placeholder="URL" value=${filters.url} onChange=${(url) => change({ url })} />
        <${SelectFilter} label="State" value=${filters.state} onChange=${(state) => change({ state })} options=${STATES} />
        <${SelectFilter} label="Created" value=${since} onChange=${(value) => change({ since: value })} options=${SINCE} />
      </div>
      <${PagedTable} pages=${pages} label=${many} columns=${columns(path)} sort=${filters.sort || "-created_at"} onSort=${(sort) => change({ sort })} empty=${empty} />
    <//>`;
}
