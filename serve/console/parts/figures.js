// How near a distribution came to the least time that its links allowed, and what limited it.

import { html } from "../vendor/ui.js";
import { duration, percent } from "../lib/format.js";

/** Its name, and what it means: without a zone or a node that stands out, and with one. */
const LIMITS = {
  origin: ["Origin", "the rate at which it was read", (at) => `read by ${at} alone`],
  zone: ["Zone", "links into the zones", (at) => `links into zone ${at}`],
  node: ["Nodes", "their links, disks or CPUs", (at) => `link, disk or CPU of ${at}`],
  startup: ["Startup", "finished before transfer rates mattered"],
  other: ["Waiting", "no link was saturated"],
};
const times = (value) => (value == null ? "–" : `${value.toFixed(2)} ×`);

/** `of`: a job's figures; `live`: knows its nodes' names, as soon as they have come. */
export function Figures({ of, live }) {
  live.summaries.value;
  if (!of) return null;
  const [limit, meaning, named] = LIMITS[of.limited_by] || ["–", "unknown"];
  const at = of.limited_by === "zone" ? of.limited_at : of.limited_at && (live.nodes.get(`${of.limited_at}/0`)?.node || of.limited_at.slice(0, 8));
  return html`<dl class="figures bare">
    <div><dt>Limited by</dt><dd>${limit}</dd><dd class="note">${at && named ? named(at) : meaning}</dd></div>
    <div><dt>Time ÷ floor</dt><dd>${times(of.floor_ratio)}</dd><dd class="note">${of.floor == null ? "floor unknown" : `floor ${duration(of.floor)} at the rates seen`}</dd></div>
    <div><dt>p99 ÷ p50</dt><dd>${times(of.p99_p50_ratio)}</dd><dd class="note">of the nodes' times</dd></div>
    <div><dt>Origin reads</dt><dd>${times(of.origin_ratio)}</dd><dd class="note">the size, by all hosts</dd></div>
    <div><dt>Across zones</dt><dd>${percent(of.cross_zone_share)}</dd><dd class="note">of the bytes from peers</dd></div>
  </dl>`;
}
