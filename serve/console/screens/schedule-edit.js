// One schedule: what it starts, when, and the next times that makes.

import { html, useLocation, useMemo, useState } from "../vendor/ui.js";
import { ask, may, post } from "../lib/api.js";
import { absolute, ago } from "../lib/format.js";
import { useResource } from "../lib/hooks.js";
import { useNews } from "../lib/news.js";
import { Button, Facts, Load, Panel, ProblemBox, State, Time } from "../parts/basics.js";
import { Check, Choice, SelectField, TextField } from "../parts/form.js";
import { PageHead } from "../parts/frame.js";
import { CheckResult, fieldsOf, JobFields, mistakes, requestOf, useCheck } from "../parts/job-form.js";
import { say } from "../parts/toasts.js";
import { runNow, when } from "./schedules.js";

const ZONES = (Intl.supportedValuesOf?.("timeZone") || []).filter((zone) => zone !== "UTC");
const UNITS = [["60", "minutes"], ["3600", "hours"], ["86400", "days"]];
const EXAMPLES = [["0 3 * * *", "every night at 3"], ["*/15 * * * *", "every 15 minutes"], ["0 6 * * 1", "Mondays at 6"]];

export function ScheduleEdit({ id }) {
  const found = useResource(id ? `/schedules/${id}` : null);
  useNews(["schedule."], (event) => (!event || event.resource_id === id) && found.reload());
  if (!id) return html`<${Edit} />`;
  return html`<${Load} of=${found} rows=${8}>${(schedule) =>
    html`<${Edit} key=${schedule.version} schedule=${schedule} reload=${found.reload} />`}<//>`;
}

function timing(schedule) {
  const seconds = schedule?.interval_seconds || 3600;
  const unit = [86400, 3600, 60].find((size) => seconds % size === 0) || 60;
  return {
    name: schedule?.name || "",
    by: schedule && !schedule.cron ? "interval" : "cron",
    cron: schedule?.cron || "0 3 * * *",
    every: String(seconds / unit),
    unit: String(unit),
    timezone: schedule?.timezone || "UTC",
    enabled: schedule?.enabled ?? true,
  };
}

function wrongTiming(times) {
  const wrong = {};
  if (!times.name.trim()) wrong.name = "A name.";
  if (times.by === "cron" && times.cron.trim().split(/\s+/).length !== 5) wrong.cron = "Five fields: minute, hour, day, month, weekday.";
  if (times.by === "interval" && !(Number(times.every) * Number(times.unit) >= 10)) wrong.every = "At least ten seconds.";
  return wrong;
}

function Edit({ schedule, reload }) {
  const [, navigate] = useLocation();
  const [kind, setKind] = useState(schedule?.kind || "distribution");
  const [times, setTimes] = useState(() => timing(schedule));
  const [fields, setFields] = useState(() => fieldsOf(schedule?.request));
  const [tried, setTried] = useState(false);
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState(null);
  const wrong = useMemo(() => mistakes(fields, kind), [fields, kind]);
  const wrongTimes = useMemo(() => wrongTiming(times), [times]);
  const check = useCheck(kind, fields, may("jobs:write") ? wrong : { rights: "" });
  const writes = may("schedules:write");
  const put = (key) => (value) => setTimes({ ...times, [key]: value });
  const submit = async (event) => {
    event.preventDefault();
    setTried(true);
    if (Object.keys({ ...wrong, ...wrongTimes }).length) {
      requestAnimationFrame(() => document.querySelector("[aria-invalid]")?.focus());
      return;
    }
    const body = {
      name: times.name.trim(),
      timezone: times.timezone,
      enabled: times.enabled,
      [kind]: requestOf(fields, kind),
      ...(times.by === "cron" ? { cron: times.cron.trim() } : { interval_seconds: Number(times.every) * Number(times.unit) }),
    };
    setBusy(true);
    setError(null);
    try {
      const saved = schedule ? await ask("PUT", `/schedules/${schedule.id}`, { body, version: schedule.version }) : await post("/schedules", body);
      say(`Saved ${saved.name}`);
      if (schedule) reload();
      else navigate(`/schedules/${saved.id}`);
    } catch (caught) {
      setError(caught);
    }
    setBusy(false);
  };
  const below = schedule
    ? html`<${State} state=${schedule.enabled ? "enabled" : "disabled"} /><span>${when(schedule)} ${schedule.timezone}</span><span>by ${schedule.created_by.name}</span>`
    : null;
  return html`<${PageHead} title=${schedule?.name || "New schedule"} above=${[["/schedules", "Schedules"]]} below=${below}
      actions=${schedule && writes ? html`<${Button} icon="play" onClick=${() => runNow(schedule, navigate)}>Run now<//>` : null} />
    <div class="columns wide-first">
      <${Panel}>
        <form class="form" onSubmit=${submit} noValidate>
          <fieldset class="form" disabled=${!writes}>
            <legend class="unseen">Schedule</legend>
            <${TextField} label="Name" value=${times.name} onChange=${put("name")} error=${tried && wrongTimes.name} maxlength="256" />
            <${Choice} legend="By" options=${[["cron", "Cron expression"], ["interval", "Interval"]]} value=${times.by} onChange=${put("by")} />
            <div class="pair">
              ${times.by === "cron"
                ? html`<${TextField} label="Cron" value=${times.cron} onChange=${put("cron")} error=${wrongTimes.cron} class="mono" spellcheck="false"
                    hint=${html`Such as ${EXAMPLES.map(([cron, text], i) => html`${i ? ", " : ""}<code>${cron}</code> ${text}`)}.`} />`
                : html`<div class="pair">
                    <${TextField} label="Every" type="number" min="1" value=${times.every} onChange=${put("every")} error=${wrongTimes.every} />
                    <${SelectField} label="Unit" value=${times.unit} onChange=${put("unit")} options=${UNITS} />
                  </div>`}
              <${SelectField} label="Time zone" value=${times.timezone} onChange=${put("timezone")} options=${["UTC", ...new Set([...ZONES, times.timezone])].filter((zone, i, all) => all.indexOf(zone) === i).map((zone) => [zone, zone])} />
            </div>
            <${Check} label="Enabled" checked=${times.enabled} onChange=${put("enabled")} />
            <hr />
            <${Choice} legend="It starts" options=${[["distribution", "A distribution"], ["preheat", "A preheat"]]} value=${kind} onChange=${setKind} />
            <${JobFields} kind=${kind} fields=${fields} change=${(changes) => setFields({ ...fields, ...changes })} wrong=${wrong} shown=${tried} />
          </fieldset>
          <${ProblemBox} error=${error} />
          ${writes ? html`<div class="form-foot"><${Button} type="submit" kind="primary" busy=${busy}>Save<//><${Button} onClick=${() => navigate("/schedules")}>Back<//></div>` : null}
        </form>
      <//>
      <div class="stack">
        ${schedule ? html`<${Upcoming} schedule=${schedule} />` : null}
        ${writes && may("jobs:write") ? html`<${Panel} title="Dry run"><${CheckResult} check=${check} /><//>` : null}
      </div>
    </div>`;
}

function Upcoming({ schedule }) {
  const found = useResource(`/schedules/${schedule.id}/upcoming?count=5`);
  return html`<${Panel} title="Next runs">
    <div class="stack">
      ${schedule.last_error ? html`<${ProblemBox} error=${{ title: "The last run failed to start", detail: schedule.last_error }} />` : null}
      <${Load} of=${found} rows=${3}>${({ items }) =>
        items.length
          ? html`<ol class="upcoming">${items.map((at) => html`<li><time datetime=${at}>${absolute(at)}</time> <span class="faint">${ago(at)}</span></li>`)}</ol>`
          : html`<p class="faint">${schedule.enabled ? "None." : "None while it is disabled."}</p>`}<//>
      <${Facts} items=${[["Last run", html`<${Time} at=${schedule.last_run_at} />`]]} />
    </div>
  <//>`;
}
