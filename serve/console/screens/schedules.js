// What runs by itself, and when.

import { html, Link, useLocation } from "../vendor/ui.js";
import { ask, may, post } from "../lib/api.js";
import { duration } from "../lib/format.js";
import { useThrottled } from "../lib/hooks.js";
import { useNews } from "../lib/news.js";
import { Button, Empty, Panel, State, Time } from "../parts/basics.js";
import { confirm } from "../parts/dialog.js";
import { PageHead } from "../parts/frame.js";
import { Icon } from "../parts/icons.js";
import { PagedTable, SelectFilter, useFilters, usePages } from "../parts/table.js";
import { complain, say } from "../parts/toasts.js";

export const when = (schedule) => (schedule.cron ? html`<code>${schedule.cron}</code>` : `every ${duration(schedule.interval_seconds)}`);

const columns = (reload, go) => [
  { key: "name", label: "Name", lead: true, cell: (s) => html`<span class="two clip"><${Link} href=${`/schedules/${s.id}`}>${s.name}<//><small>${s.request.urls?.[0]}</small></span>` },
  { key: "kind", label: "Starts", cell: (s) => s.kind },
  { key: "when", label: "When", cell: (s) => html`${when(s)} <span class="faint">${s.timezone}</span>` },
  { key: "state", label: "State", cell: (s) => (s.last_error ? html`<span title=${s.last_error}><${State} state="failing" /></span>` : html`<${State} state=${s.enabled ? "enabled" : "disabled"} />`) },
  { key: "next", label: "Next", num: true, cell: (s) => html`<${Time} at=${s.next_run_at} none="–" />` },
  { key: "last", label: "Last", num: true, cell: (s) => (s.last_job_id ? html`<${Link} href=${`/${s.kind}s/${s.last_job_id}`}><${Time} at=${s.last_run_at} /><//>` : html`<${Time} at=${s.last_run_at} />`) },
  { key: "by", label: "By", narrow: false, cell: (s) => s.created_by.name },
  ...(may("schedules:write")
    ? [{
        key: "act",
        label: "Actions",
        act: true,
        cell: (s) => html`<span class="row-actions">
          <${Button} icon="play" label=${`Run ${s.name} now`} onClick=${() => runNow(s, go)} />
          <${Button} icon="trash" label=${`Delete ${s.name}`} onClick=${() => confirm(`Delete ${s.name}?`, { text: "Jobs that it has started stay.", action: "Delete", act: async () => {
            await ask("DELETE", `/schedules/${s.id}`);
            say("Deleted");
            reload();
          } })} />
        </span>`,
      }]
    : []),
];

export async function runNow(schedule, go) {
  try {
    const job = await post(`/schedules/${schedule.id}/run`);
    say(`Started ${schedule.name}`);
    go(`/${schedule.kind}s/${job.id}`);
  } catch (error) {
    complain(error);
  }
}

export function Schedules() {
  const [filters, change] = useFilters();
  const pages = usePages("/schedules", filters);
  const [, navigate] = useLocation();
  const reload = useThrottled(pages.reload, 400);
  useNews(["schedule."], reload);
  const create = may("schedules:write") ? html`<${Link} class="button primary" href="/schedules/new"><${Icon} name="plus" />New schedule<//>` : null;
  return html`<${PageHead} title="Schedules" below="Distributions and preheats that start by themselves, with the rights of whoever made them." actions=${create} />
    <${Panel} flush>
      <div class="filters">
        <${SelectFilter} label="Starts" value=${filters.kind} onChange=${(kind) => change({ kind })} options=${[["", "any"], ["distribution", "distributions"], ["preheat", "preheats"]]} />
        <${SelectFilter} label="Enabled" value=${filters.enabled} onChange=${(enabled) => change({ enabled })} options=${[["", "any"], ["true", "yes"], ["false", "no"]]} />
      </div>
      <${PagedTable} pages=${pages} label="Schedules" columns=${columns(pages.reload, navigate)}
        empty=${html`<${Empty} title="No schedules" action=${create}>A nightly preheat is a good first one.<//>`} />
    <//>`;
}
