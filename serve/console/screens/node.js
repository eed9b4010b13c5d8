// One node.

import { html, useLocation } from "../vendor/ui.js";
import { bytes, count, percent, rate } from "../lib/format.js";
import { useEvery, useResource, useThrottled } from "../lib/hooks.js";
import { useNews } from "../lib/news.js";
import { Facts, Id, Load, Panel, ProblemBox, Tag, Time } from "../parts/basics.js";
import { PageHead } from "../parts/frame.js";
import { Legend, SplitBar } from "../parts/provenance.js";
import { nodeActions, NodeState } from "./nodes.js";

export function Node({ id }) {
  const found = useResource(`/nodes/${id}`);
  const [, navigate] = useLocation();
  const reload = useThrottled(found.reload, 300);
  useNews(["node."], (event) => (!event || event.resource_id === id) && reload());
  useEvery(3, reload);
  return html`<${Load} of=${found} rows=${6}>${(node) => {
    const done = (after) => (after ? found.set(after) : navigate("/nodes"));
    const below = html`<${NodeState} node=${node} /><${Id} id=${node.node_id} /><code>${node.address}</code>${node.role === "seed" ? html`<${Tag} tone="info">seed<//>` : null}`;
    return html`<${PageHead} title=${node.shown_name} above=${[["/nodes", "Nodes"]]} below=${below} actions=${nodeActions(node, done, true)} />
      <div class="stack">
        <${ProblemBox} error=${node.error ? { title: "Its peer is unhealthy", detail: node.error } : null} />
        ${node.note ? html`<p class="note-box warn">${node.note}</p>` : null}
        <dl class="figures">
          <div><dt>Receives</dt><dd>${rate(node.receive_rate)}</dd><dd class="note">${bytes(node.bytes.origin + node.bytes.peers + node.bytes.cache + node.bytes.object_store)} since its peer began</dd></div>
          <div><dt>Sends</dt><dd>${rate(node.send_rate)}</dd><dd class="note">${bytes(node.bytes_sent)} since its peer began</dd></div>
          <div><dt>Active tasks</dt><dd>${count(node.active_tasks)}</dd><dd class="note">settings version ${node.settings_version}</dd></div>
          <div><dt>Store</dt><dd>${node.store_quota ? percent(node.store_used / node.store_quota) : "–"}</dd><dd class="note">${bytes(node.store_used)} of ${bytes(node.store_quota)}</dd></div>
          <div><dt>Disk free</dt><dd>${bytes(node.disk_free)}</dd><dd class="note">of ${bytes(node.disk_total)}</dd></div>
        </dl>
        <${Panel} title="Received by source"><div class="stack"><${SplitBar} of=${node.bytes} /><${Legend} of=${node.bytes} /></div><//>
        <${Panel} title="About">
          <${Facts} items=${[
            ["Labels", html`<span class="tags">${Object.entries(node.labels).map(([key, value]) => html`<${Tag}>${key}=${value}<//>`)}</span>`],
            ["First seen", html`<${Time} at=${node.first_seen_at} />`],
            ["Last seen", html`<${Time} at=${node.last_seen_at} />`],
          ]} />
        <//>
      </div>`;
  }}<//>`;
}
