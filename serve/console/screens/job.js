// One distribution or preheat, live.

import { html, Link, useEffect, useLocation, useMemo, useState } from "../vendor/ui.js";
import { ask, may, post } from "../lib/api.js";
import { bytes, count, duration, lastPart, percent, plural, rate, selector, sum } from "../lib/format.js";
import { LiveJob } from "../lib/live-job.js";
import { Button, Empty, Facts, Id, Loading, Panel, ProblemBox, Segments, State, Time } from "../parts/basics.js";
import { confirm } from "../parts/dialog.js";
import { Flow, flowsOf } from "../parts/flow.js";
import { Figures } from "../parts/figures.js";
import { PageHead } from "../parts/frame.js";
import { HeatMap } from "../parts/heat-map.js";
import { LINKS } from "../parts/job-form.js";
import { NodeTable } from "../parts/node-table.js";
import { Legend, SplitBar } from "../parts/provenance.js";
import { complain, say } from "../parts/toasts.js";
import { KINDS } from "./jobs.js";

const ENDED = new Set(["succeeded", "partial", "failed", "cancelled"]);

/** Cells as many as there are pixels to show them, in steps so that a resized window asks for nothing new. */
function wanted() {
  const wide = window.innerWidth - (window.innerWidth > 860 ? 300 : 54);
  return Math.max(64, Math.min(1024, Math.floor(wide / 64) * 64));
}

export function Job({ kind, id }) {
  const [live, setLive] = useState(null);
  useEffect(() => {
    const made = new LiveJob(kind, id, wanted());
    setLive(made);
    return () => made.close();
  }, [kind, id]);
  const job = live?.job.value;
  const error = live?.error.value;
  if (error && !job) return html`<${PageHead} title=${KINDS[kind].many} above=${[[KINDS[kind].path, KINDS[kind].many]]} /><${ProblemBox} error=${error} />`;
  if (!job) return html`<${Loading} rows=${8} label=${`Loading the ${kind}`} />`;
  return html`<${Shown} live=${live} job=${job} kind=${kind} />`;
}

function Shown({ live, job, kind }) {
  const [index, setIndex] = useState(0);
  const { many, path } = KINDS[kind];
  const title = job.name || lastPart(job.urls[0]);
  const below = html`<${State} state=${job.state} />
    <${Id} id=${job.id} />
    <span>by ${job.created_by.name} <${Time} at=${job.created_at} /></span>
    <span>to ${selector(job.nodes)}</span>
    ${job.dest ? html`<span>at <code>${job.dest}</code></span>` : null}`;
  return html`<${PageHead} title=${title} above=${[[path, many]]} below=${below} actions=${html`<${Actions} live=${live} job=${job} kind=${kind} />`} />
    <div class="stack">
      <${ProblemBox} error=${job.error && { title: `The ${kind} ${job.state === "failed" ? "failed" : `is ${job.state}`}`, detail: job.error.message }} />
      <${Progress} live=${live} job=${job} />
      ${job.urls.length > 1
        ? html`<${Segments} label="URL" value=${String(index)} onChange=${(key) => setIndex(Number(key))} options=${job.urls.map((url, i) => [String(i), lastPart(url)])} />`
        : null}
      <${Failures} live=${live} job=${job} kind=${kind} />
      <${Pieces} live=${live} job=${job} index=${index} />
      <${Panel} title="Nodes" meta=${plural(job.progress.nodes_total, "node")} flush>
        <${NodeTable} live=${live} index=${index} jobEnded=${ENDED.has(job.state)} actions=${may("jobs:write") ? (node, ended) => retryButton(job, kind, node, ended) : null} />
      <//>
      <div class="columns wide-first">
        <${WhoFedWhom} live=${live} index=${index} />
        <${About} job=${job} />
      </div>
    </div>`;
}

function Actions({ live, job, kind }) {
  const [, navigate] = useLocation();
  const { path, one, many } = KINDS[kind];
  if (!may("jobs:write")) return null;
  if (!ENDED.has(job.state)) {
    return html`<${Button} icon="stop" kind="danger" onClick=${() =>
      confirm(`Cancel this ${one}?`, {
        text: "The work stops on every node. What is there already stays.",
        action: "Cancel it",
        act: async () => {
          live.job.value = await post(`${path}/${job.id}/cancel`);
          say("Cancelled");
        },
      })}>Cancel<//>`;
  }
  const again = () => {
    const request = Object.fromEntries(
      ["urls", "nodes", "name", "digest", "include", "exclude", "secret", "tag", "application", "filtered_query_params", "links", "dest", "link"].map((key) => [key, job[key]]),
    );
    navigate(`${path}/new`, { state: { request } });
  };
  return html`
    ${job.progress.nodes_failed || job.state === "cancelled" ? html`<${RetryButton} job=${job} kind=${kind} label="Retry failed nodes" main />` : null}
    <${Button} icon="copy" onClick=${again}>Duplicate<//>
    <${Button} icon="trash" kind="plain" label=${`Delete this ${one}`} onClick=${() =>
      confirm(`Delete this ${one}?`, {
        text: "Its record goes; what lies on the nodes and the audit of it stay.",
        action: "Delete",
        act: async () => {
          await ask("DELETE", `${path}/${job.id}`);
          say("Deleted");
          navigate(`/${many.toLowerCase()}`);
        },
      })} />`;
}

export function RetryButton({ job, kind, nodes = [], label, main = false }) {
  const [, navigate] = useLocation();
  const [busy, setBusy] = useState(false);
  const act = async () => {
    setBusy(true);
    try {
      const next = await post(`${KINDS[kind].path}/${job.id}/retry`, { node_ids: nodes });
      say("Retrying failed nodes");
      navigate(`${KINDS[kind].path}/${next.id}`);
    } catch (error) {
      complain(error);
      setBusy(false);
    }
  };
  return html`<${Button} icon="retry" kind=${main ? "primary" : ""} busy=${busy} onClick=${act}>${label}<//>`;
}

function retryButton(job, kind, node, ended) {
  if (node.state !== "failed" || !ended) return null;
  return html`<${RetryButton} job=${job} kind=${kind} nodes=${[node.node_id]} label="Retry" />`;
}

function Progress({ live, job }) {
  const { progress } = job;
  const share = progress.bytes_total ? progress.bytes_done / progress.bytes_total : 0;
  const running = job.state === "running";
  const step = Math.floor(share * 10) * 10;
  return html`<${Panel}>
    <div class="stack">
      <dl class="figures bare">
        <div><dt>Progress</dt><dd>${percent(share)}</dd><dd class="note">${bytes(progress.bytes_done)} of ${bytes(progress.bytes_total || null)}</dd></div>
        <div><dt>Nodes</dt><dd>${count(progress.nodes_done)} / ${count(progress.nodes_total)}</dd><dd class="note">${progress.nodes_failed ? `${count(progress.nodes_failed)} failed` : "none failed"}</dd></div>
        <div><dt>${running ? "Rate" : "Mean rate"}</dt><dd>${running ? rate(progress.rate) : job.seconds ? rate(progress.bytes_done / job.seconds) : "–"}</dd><dd class="note">over all nodes</dd></div>
        <div><dt>${running ? "Left" : "Took"}</dt><dd>${running ? duration(progress.eta) : duration(job.seconds)}</dd><dd class="note">${running ? `${duration(job.seconds)} so far` : html`<${Time} at=${job.ended_at} />`}</dd></div>
        <div><dt>Origin egress</dt><dd>${bytes(job.bytes.origin)}</dd><dd class="note">${job.size ? `${(job.bytes.origin / job.size).toFixed(2)} × the size` : "size not known yet"}</dd></div>
      </dl>
      ${progress.waiting ? html`<div class="note-box warn" role="status">Waiting for the origin: ${progress.waiting}</div>` : null}
      <${Figures} of=${job.figures} live=${live} />
      <${SplitBar} of=${job.bytes} audit=${job.bytes_audit} rest=${Math.max(progress.bytes_total - sum(job.bytes), 0)} />
      <${Legend} of=${job.bytes} />
      ${job.bytes_audit ? html`<p class="faint">${bytes(job.bytes_audit)} were read at the origin a second time, to compare</p>` : null}
      <p class="unseen" role="status" aria-live="polite">${running ? `${step} percent` : `${job.state}, ${progress.nodes_done} of ${progress.nodes_total} nodes`}</p>
    </div>
  <//>`;
}

function Pieces({ live, job, index }) {
  live.grids.value;
  const grid = live.cells.get(index);
  const byId = (id) => live.nodes.get(`${id}/${index}`);
  return html`<${Panel} title="Pieces on nodes" meta="a row a node, from the first piece to the last; above it, how many copies there are">
    ${grid
      ? html`<${HeatMap} live=${live} grid=${grid} nameOf=${(id) => byId(id)?.node || id.slice(0, 8)} stateOf=${(id) => byId(id)?.state || ""} />`
      : html`<${Empty} title=${ENDED.has(job.state) ? "No pieces to show" : "Waiting for the first pieces"}>
          ${ENDED.has(job.state) ? "The cluster keeps no picture of a job that has ended and whose content is gone." : "The source is being looked at."}<//>`}
  <//>`;
}

function WhoFedWhom({ live, index }) {
  const edges = live.edges.value;
  const tick = live.summaries.value;
  const flows = useMemo(() => flowsOf(edges, [...live.nodes.values()].filter((node) => node.url_index === index)), [edges, tick, index]);
  return html`<${Panel} title="Peer traffic"><${Flow} flows=${flows} /><//>`;
}

/** Failed nodes by the reason. */
function Failures({ live, job, kind }) {
  const tick = live.summaries.value;
  const groups = useMemo(() => {
    const found = new Map();
    for (const node of live.nodes.values()) {
      if (node.state !== "failed") continue;
      const key = `${node.error?.kind} ${node.error?.message}`;
      if (!found.has(key)) found.set(key, { key, error: node.error, nodes: [] });
      found.get(key).nodes.push(node);
    }
    return [...found.values()].sort((a, b) => b.nodes.length - a.nodes.length);
  }, [tick]);
  if (!groups.length) return null;
  const ended = ENDED.has(job.state);
  return html`<${Panel} title="Failures" meta=${plural(job.progress.nodes_failed, "node")}>
    <ul class="failures">
      ${groups.slice(0, 20).map(
        ({ key, error, nodes }) => html`<li key=${key} class="failure">
          <div><p><strong>${error?.kind || "failed"}</strong></p><p>${error?.message}</p></div>
          ${may("jobs:write") && ended ? html`<${RetryButton} job=${job} kind=${kind} nodes=${[...new Set(nodes.map((node) => node.node_id))]} label=${nodes.length > 1 ? `Retry ${nodes.length} nodes` : "Retry"} />` : null}
          <p class="where fine">${nodes.slice(0, 12).map((node) => node.node).join(", ")}${nodes.length > 12 ? ` and ${count(nodes.length - 12)} more` : ""}</p>
        </li>`,
      )}
    </ul>
    ${ended || !may("jobs:write") ? null : html`<p class="fine">Failed nodes can be retried once the job has ended.</p>`}
  <//>`;
}

function About({ job }) {
  return html`<${Panel} title="About">
    <${Facts} items=${[
      ["Sources", html`${job.urls.map((url, i) => html`<span class="about-url"><code>${url}</code>${job.task_ids[i] ? html` <${Link} href=${`/tasks/${encodeURIComponent(job.task_ids[i])}`}>task<//>` : null}</span>`)}`],
      ["Size", bytes(job.size)],
      job.digest && ["Digest", html`<code>${job.digest}</code>`],
      job.secret && ["Secret", job.secret],
      job.include.length && ["Only", html`<code>${job.include.join(" ")}</code>`],
      job.exclude.length && ["Not", html`<code>${job.exclude.join(" ")}</code>`],
      job.links !== "refuse" && ["Symlinks", LINKS[job.links]],
      job.tag && ["Tag", job.tag],
      job.application && ["Application", job.application],
      ["Started", html`<${Time} at=${job.started_at} none="not yet" />`],
      ["Ended", html`<${Time} at=${job.ended_at} none="not yet" />`],
      job.retry_of && ["Retry of", html`<${Link} href=${`${KINDS[job.kind].path}/${job.retry_of}`}><code>${job.retry_of.slice(0, 8)}</code><//>`],
      job.schedule_id && ["Schedule", html`<${Link} href=${`/schedules/${job.schedule_id}`}><code>${job.schedule_id.slice(0, 8)}</code><//>`],
    ]} />
  <//>`;
}
