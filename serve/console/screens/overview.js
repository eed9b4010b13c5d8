// One look at everything: what moves, what was saved, what runs, who is well.

import { html, Link, useEffect, useMemo, useRef, useState } from "../vendor/ui.js";
import { get, may, query } from "../lib/api.js";
import { bytes, count, duration, lastPart, percent, plural, rate, selector, SOURCES, sum } from "../lib/format.js";
import { useEvery, useResource, useThrottled } from "../lib/hooks.js";
import { useNews } from "../lib/news.js";
import { Stream } from "../lib/stream.js";
import { Bar, Empty, Load, Panel, ProblemBox, Segments, State, Time } from "../parts/basics.js";
import { PageHead } from "../parts/frame.js";
import { Icon } from "../parts/icons.js";
import { Legend, SplitBar } from "../parts/provenance.js";
import { DataTable } from "../parts/table.js";
import { TrafficChart } from "../parts/traffic-chart.js";

/** Window in seconds: step in seconds, name. */
const WINDOWS = { 900: [60, "15 min"], 3600: [60, "1 h"], 21600: [60, "6 h"], 86400: [300, "24 h"], 604800: [3600, "7 d"] };
const MOST_LINKS = 120;
const KEYS = SOURCES.map(({ key }) => key);

/** Windows up to this one go on from the stream, second by second. */
const LIVE_WINDOW = 3600;
/** Seconds after which the statistics know more. */
const SAMPLED = 10;

/** Rates over time, up to `now`: a stretch that has not ended counts for as long as it has lasted. */
function seriesOf(points, now) {
  const begins = points.map((point) => Date.parse(point.at) / 1000);
  const lasted = points.map((point, i) => Math.min(point.seconds, Math.max(now - begins[i], SAMPLED)));
  const rates = KEYS.map((key) => points.map((point, i) => point.bytes[key] / lasted[i]));
  const open = points.length && begins.at(-1) + points.at(-1).seconds > now;
  return open ? [[...begins, now], ...rates.map((values) => [...values, values.at(-1)])] : [begins, ...rates];
}

/** What the statistics know, and from then on what the stream tells every second. */
function useTraffic(seconds, overview) {
  const [history, setHistory] = useState({ error: null, series: null });
  const tail = useRef([]);
  const [round, setRound] = useState(0);
  useEffect(() => {
    tail.current = [];
  }, [seconds]);
  useEffect(() => {
    const aborting = new AbortController();
    const until = new Date();
    const since = new Date(until - seconds * 1000);
    const asked = query({ since: since.toISOString(), until: until.toISOString(), step: WINDOWS[seconds][0] });
    get(`/stats/traffic${asked}`, { signal: aborting.signal }).then(
      (answer) => {
        const { total, saved } = answer;
        const drawn = { error: null, seconds, series: seriesOf(answer.points, until / 1000), total, saved };
        // What the stream has told is finer than what is asked for again: of that only the totals are taken.
        const live = seconds <= LIVE_WINDOW;
        setHistory((old) => (live && old.series && old.seconds === seconds ? { ...old, total, saved } : drawn));
      },
      (error) => error.name !== "AbortError" && setHistory({ error, series: null }),
    );
    return () => aborting.abort();
  }, [seconds, round]);
  // A tail of seconds does not fit to steps of minutes: longer windows are drawn anew.
  useEvery(seconds > LIVE_WINDOW ? WINDOWS[seconds][0] : SAMPLED, () => setRound((n) => n + 1));
  return useMemo(() => {
    if (!history.series) return history;
    const [times] = history.series;
    if (overview && seconds <= LIVE_WINDOW && history.seconds === seconds) {
      const at = Date.parse(overview.at) / 1000;
      const newest = tail.current.at(-1)?.at ?? times.at(-1) ?? 0;
      if (at > newest) tail.current.push({ at, rates: overview.rates });
      const oldest = at - seconds;
      const skip = times.findIndex((time) => time >= oldest);
      const kept = (values) => (skip < 0 ? [] : values.slice(skip));
      tail.current = tail.current.filter((point) => point.at >= oldest);
      return {
        ...history,
        series: [
          [...kept(times), ...tail.current.map((point) => point.at)],
          ...KEYS.map((key, i) => [...kept(history.series[i + 1]), ...tail.current.map((point) => point.rates[key])]),
        ],
      };
    }
    return history;
  }, [history, overview]);
}

function useOverview() {
  const [overview, setOverview] = useState(null);
  const [error, setError] = useState(null);
  useEffect(() => {
    const stream = new Stream("/stats/stream", { name: "overview", on: { overview: setOverview }, refused: setError });
    get("/stats/overview").then((first) => setOverview((old) => old || first), setError);
    return () => stream.close();
  }, []);
  return [overview, error];
}

export function Overview() {
  const [overview, error] = useOverview();
  return html`<${PageHead} title="Overview" />
    <div class="stack">
      <${ProblemBox} error=${overview ? null : error} />
      <${ProblemBox} error=${overview?.cluster_error ? { title: "Cluster unavailable", detail: overview.cluster_error } : null} />
      <${Figures} overview=${overview} />
      <${Traffic} overview=${overview} />
      <div class="columns wide-first">
        ${may("jobs:read") ? html`<${Running} overview=${overview} />` : null}
        ${may("nodes:read") ? html`<${Health} overview=${overview} />` : null}
      </div>
      <${Top} />
    </div>`;
}

function Figures({ overview }) {
  const now = overview || { rates: {}, jobs_ended_24h: {} };
  const moved = now.bytes_saved + now.bytes_origin;
  const ended = now.jobs_ended_24h;
  const wrong = (ended.failed || 0) + (ended.partial || 0);
  return html`<dl class="figures">
    <div class="wide"><dt>Origin traffic saved</dt><dd>${overview ? bytes(now.bytes_saved) : "–"}</dd>
      <dd class="note">${overview && moved ? `${percent(now.bytes_saved / moved, 1)} of all bytes; origin egress ${bytes(now.bytes_origin)}` : "nothing has moved yet"}</dd></div>
    <div><dt>Arriving now</dt><dd>${overview ? rate(sum(now.rates)) : "–"}</dd><dd class="note">${overview ? `${rate(now.rates.origin)} from the origin` : ""}</dd></div>
    <div><dt>Running</dt><dd>${count(overview?.jobs_active)}</dd><dd class="note">${overview ? `${count(now.jobs_queued)} queued` : ""}</dd></div>
    <div><dt>Ended in 24 h</dt><dd>${overview ? count(Object.values(ended).reduce((a, b) => a + b, 0)) : "–"}</dd>
      <dd class="note">${wrong ? `${count(wrong)} not succeeded` : "all succeeded"}</dd></div>
    <div><dt>Healthy nodes</dt><dd>${overview ? `${count(now.nodes_healthy)} / ${count(now.nodes_total)}` : "–"}</dd>
      <dd class="note">${overview ? [`${count(now.nodes_alive)} alive`, now.nodes_cordoned && `${count(now.nodes_cordoned)} cordoned`].filter(Boolean).join(", ") : ""}</dd></div>
    <div><dt>Stores</dt><dd>${overview ? bytes(now.store_used) : "–"}</dd><dd class="note">${overview?.store_quota ? `${percent(now.store_used / now.store_quota)} of ${bytes(now.store_quota)}` : ""}</dd></div>
  </dl>`;
}

function Traffic({ overview }) {
  const [seconds, setSeconds] = useState(3600);
  const traffic = useTraffic(seconds, overview);
  const choose = html`<${Segments} label="Window" value=${String(seconds)} onChange=${(key) => setSeconds(Number(key))}
    options=${Object.entries(WINDOWS).map(([key, [, text]]) => [key, text])} />`;
  return html`<${Panel} title="Received by all nodes" actions=${choose}>
    <div class="stack">
      ${overview ? html`<${Legend} of=${overview.rates} rates />` : null}
      ${traffic.error
        ? html`<${ProblemBox} error=${traffic.error} />`
        : traffic.series
          ? html`<${TrafficChart} series=${traffic.series} label=${`Bytes a second by source over the last ${WINDOWS[seconds][1]}. In total: ${SOURCES.map(({ key, label }) => `${label} ${bytes(traffic.total[key])}`).join(", ")}.`} />
              <p class="fine">In the last ${WINDOWS[seconds][1]}: ${bytes(sum(traffic.total))} received, ${bytes(traffic.saved)} of them without the origin.</p>`
          : html`<div class="chart" role="status"><span class="unseen">Loading the chart</span></div>`}
    </div>
  <//>`;
}

function Running({ overview }) {
  const found = useResource("/distributions?state=running&limit=8");
  const warm = useResource("/preheats?state=running&limit=8");
  const reload = useThrottled(() => {
    found.reload();
    warm.reload();
  }, 400);
  useNews(["job."], reload);
  // Progress of many jobs at once comes on no stream; the overview's own tells that there is any.
  useEvery(2, reload, Boolean(overview?.jobs_active || found.data?.items.length || warm.data?.items.length));
  const jobs = found.data && [...found.data.items, ...(warm.data?.items || [])];
  return html`<${Panel} title="Running now" meta=${jobs?.length ? plural(jobs.length, "job") : null}
    actions=${html`<${Link} href="/distributions" class="fine">All distributions<//>`}>
    <${Load} of=${found} rows=${3}>${() =>
      jobs.length
        ? html`<ul class="running-list">${jobs.map((job) => html`<${RunningJob} key=${job.id} job=${job} />`)}</ul>`
        : html`<${Empty} title="No active distributions">${may("jobs:write") ? html`<${Link} class="button primary" href="/distributions/new"><${Icon} name="plus" />New distribution<//>` : null}<//>`}<//>
  <//>`;
}

function RunningJob({ job }) {
  const { progress } = job;
  const share = progress.bytes_total ? progress.bytes_done / progress.bytes_total : 0;
  const name = job.name || lastPart(job.urls[0]);
  return html`<li>
    <span class="clip"><${Link} href=${`/${job.kind}s/${job.id}`}>${name}<//> <span class="faint">to ${selector(job.nodes)}</span></span>
    <span class="fine nowrap end">${count(progress.nodes_done)} of ${plural(progress.nodes_total, "node")}${progress.nodes_failed ? html` <span class="state bad">${count(progress.nodes_failed)} failed</span>` : ""}</span>
    <span class="bar-line"><${Bar} value=${share} label=${`Progress of ${name}`} tone=${progress.nodes_failed ? "warn" : ""} /><span>${percent(share)}</span></span>
    <span class="fine">${rate(progress.rate)}</span>
    <span class="fine nowrap end">${progress.eta == null ? "" : `${duration(progress.eta)} left`}</span>
  </li>`;
}

const toneOf = (node) => {
  if (!node.alive || ["dead", "missing", "unhealthy"].includes(node.state)) return "bad";
  if (node.cordoned || node.draining) return "warn";
  return node.state === "healthy" ? (node.active_tasks ? "info" : "good") : "idle";
};
const SIGN = { bad: "cross", warn: "pause", idle: "dash", info: "down" };
const WORD = { bad: "unhealthy", warn: "cordoned or draining", idle: "starting", info: "active", good: "healthy" };

function Health({ overview }) {
  const found = useResource("/nodes?limit=500");
  const reload = useThrottled(found.reload, 500);
  useNews(["node."], reload);
  // Who is at work is no event.
  useEvery(10, reload);
  return html`<${Panel} title="Nodes" actions=${html`<${Link} href="/nodes" class="fine">All nodes<//>`}>
    <${Load} of=${found} rows=${3}>${({ items, next_cursor: more }) => {
      const tones = items.map(toneOf);
      const tally = ["good", "info", "warn", "idle", "bad"].map((tone) => [tone, tones.filter((one) => one === tone).length]).filter(([, n]) => n);
      const wrong = items.filter((node, i) => tones[i] === "bad").slice(0, 4);
      return html`<div class="stack">
        ${items.length ? null : html`<${Empty} title="No nodes yet" />`}
        <${Cells} nodes=${items} tones=${tones} />
        <p class="fine">${tally.map(([tone, n]) => `${count(n)} ${WORD[tone]}`).join(", ")}${more ? `; the first ${items.length} of ${count(overview?.nodes_total)}` : ""}</p>
        ${wrong.map((node) => html`<p key=${node.node_id}><${State} state=${node.alive ? node.state : "dead"} /> <${Link} href=${`/nodes/${node.node_id}`}>${node.shown_name}<//> <span class="faint">${node.error}</span></p>`)}
      </div>`;
    }}<//>
  <//>`;
}

/** Few nodes are links; many are a picture, of which the list is the alternative. */
function Cells({ nodes, tones }) {
  if (!nodes.length) return null;
  const sign = (tone, size) => (SIGN[tone] ? html`<${Icon} name=${SIGN[tone]} size=${size} />` : null);
  if (nodes.length > MOST_LINKS) {
    return html`<div class="cells dense" role="img" aria-label="The state of each node; the list of nodes has the same in words">
      ${nodes.map((node, i) => html`<span key=${node.node_id} class=${tones[i]} title=${`${node.shown_name}: ${node.state}`}>${sign(tones[i], 8)}</span>`)}
    </div>`;
  }
  return html`<div class="cells">
    ${nodes.map(
      (node, i) => html`<${Link} key=${node.node_id} class=${tones[i]} href=${`/nodes/${node.node_id}`} title=${`${node.shown_name}: ${node.state}`} aria-label=${`${node.shown_name}: ${node.state}`}>
        ${sign(tones[i], 12)}<//>`,
    )}
  </div>`;
}

const TOP = [
  { key: "url", label: "Source", lead: true, cell: (task) => html`<${Link} class="clip two" href=${`/tasks/${encodeURIComponent(task.task_id)}`} title=${task.url}>${task.url}<//>` },
  { key: "size", label: "Size", num: true, cell: (task) => bytes(task.size) },
  { key: "jobs", label: "Jobs", num: true, cell: (task) => count(task.jobs) },
  { key: "moved", label: "Received", num: true, cell: (task) => bytes(sum(task.bytes)) },
  { key: "saved", label: "From peers and caches", num: true, cell: (task) => percent(1 - task.bytes.origin / Math.max(sum(task.bytes), 1), 1) },
  { key: "by", label: "By source", narrow: false, cell: (task) => html`<${SplitBar} of=${task.bytes} />` },
  { key: "last", label: "Last", num: true, cell: (task) => html`<${Time} at=${task.last_at} />` },
];

function Top() {
  const found = useResource("/stats/tasks?limit=8");
  const reload = useThrottled(found.reload, 1000);
  useNews(["job.ended"], reload);
  return html`<${Panel} title="Top sources" flush>
    <${Load} of=${found} rows=${4}>${(answer) => {
      const rows = answer.items || answer;
      return rows.length
        ? html`<${DataTable} label="Top sources" columns=${TOP} rows=${rows} id=${(task) => task.task_id} />`
        : html`<${Empty} title="No traffic yet" />`;
    }}<//>
  <//>`;
}
