// How near a distribution came to the least time, and what limited it.

import { html } from "../vendor/ui.js";
import { duration, percent } from "../lib/format.js";

const LIMITS = {
  origin: "the origin's rate",
  zone: "what enters one zone",
  node: "one node's link, disk or processor",
  start: "too short to tell",
  other: "none of the links",
};
const times = (value) => (value == null ? "–" : `${value.toFixed(2)} ×`);

/** `of`: a job's figures; `nameOf`: a node's name by its id. */
export function Figures({ of, nameOf }) {
  if (!of) return null;
  const at = of.limited_by === "node" ? nameOf(of.limited_at) : of.limited_at;
  return html`<dl class="figures bare">
    <div><dt>Time / floor</dt><dd>${times(of.time_to_floor)}</dd><dd class="note">${of.floor == null ? "floor not known" : `floor ${duration(of.floor)}`}</dd></div>
    <div><dt>p99 / p50</dt><dd>${times(of.p99_to_p50)}</dd><dd class="note">over nodes</dd></div>
    <div><dt>Read at the origin</dt><dd>${times(of.origin_ratio)}</dd><dd class="note">of the size</dd></div>
    <div><dt>Across zones</dt><dd>${of.cross_zone_share == null ? "–" : percent(of.cross_zone_share)}</dd><dd class="note">of bytes from peers</dd></div>
    <div><dt>Limited by</dt><dd>${of.limited_by || "–"}</dd><dd class="note">${at || LIMITS[of.limited_by] || "not known"}</dd></div>
  </dl>`;
}
