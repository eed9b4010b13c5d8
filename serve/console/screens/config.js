// Settings that reach every node while it works: a form from their schema, each change a version.

import { html, useEffect, useMemo, useState } from "../vendor/ui.js";
import { ask, may, post } from "../lib/api.js";
import { useResource, useThrottled } from "../lib/hooks.js";
import { useNews } from "../lib/news.js";
import { Button, Empty, Load, Panel, ProblemBox, State, Tag, Time } from "../parts/basics.js";
import { confirm, Dialog } from "../parts/dialog.js";
import { TextField } from "../parts/form.js";
import { PageHead } from "../parts/frame.js";
import { PagedTable, usePages } from "../parts/table.js";
import { say } from "../parts/toasts.js";

const shown = (value) => (value === undefined ? "as at the start" : value === null ? "none" : typeof value === "object" ? JSON.stringify(value) : String(value));

/** The types that a setting may have, without null, and what may be chosen from. */
function kindOf(schema) {
  const variants = (schema.anyOf || schema.oneOf || [schema]).filter((one) => one.type !== "null");
  const choices = variants.flatMap((one) => one.enum || (one.const !== undefined ? [one.const] : []));
  const types = new Set(variants.map((one) => one.type));
  return {
    choices: choices.length && variants.every((one) => one.enum || one.const !== undefined) ? choices : null,
    number: [...types].every((type) => type === "number" || type === "integer"),
    whole: types.size === 1 && types.has("integer"),
    boolean: types.size === 1 && types.has("boolean"),
    text: types.has("string"),
    bounds: variants[0] || {},
    nullable: (schema.anyOf || schema.oneOf || []).some((one) => one.type === "null"),
  };
}

function parse(text, kind) {
  if (kind.nullable && text.trim() === "none") return null;
  if (kind.boolean) return text === "true";
  if (kind.number) {
    const value = Number(text);
    if (text.trim() === "" || Number.isNaN(value)) throw new Error("A number.");
    if (kind.whole && !Number.isInteger(value)) throw new Error("A whole number.");
    return value;
  }
  if (!kind.text) return JSON.parse(text);
  // Such as "80%" or 10737418240: a number where both may be.
  return /^-?\d+(\.\d+)?$/.test(text.trim()) && !kind.choices ? Number(text) : text;
}

const section = (dotted) => dotted?.split(".")[0];

/** Text with what stands between backticks as code. */
const described = (text) => text.split("`").map((part, i) => (i % 2 ? html`<code>${part}</code>` : part));

function lookup(effective, dotted) {
  const [section, ...rest] = dotted.split(".");
  return dotted in effective ? effective[dotted] : effective[section]?.[rest.join(".")];
}

function differences(before, after) {
  return [...new Set([...Object.keys(before), ...Object.keys(after)])]
    .sort()
    .filter((key) => JSON.stringify(before[key]) !== JSON.stringify(after[key]))
    .map((key) => ({ key, before: before[key], after: after[key] }));
}

export function Diff({ before, after, labels = ["In force", "Then"] }) {
  const changes = differences(before, after);
  if (!changes.length) return html`<p class="faint">No difference.</p>`;
  return html`<table class="diff">
    <thead><tr><th scope="col">Setting</th><th scope="col">${labels[0]}</th><th scope="col">${labels[1]}</th></tr></thead>
    <tbody>${changes.map(
      (one) => html`<tr key=${one.key}><th scope="row"><code>${one.key}</code></th><td class="was">${shown(one.before)}</td><td class="is">${shown(one.after)}</td></tr>`,
    )}</tbody>
  </table>`;
}

export function Config() {
  const found = useResource("/config");
  const reload = useThrottled(found.reload, 300);
  useNews(["config."], reload);
  return html`<${PageHead} title="Config" below="Settings of the cluster that change while it runs. Each change is a version, and can be taken back." />
    <div class="stack"><${Load} of=${found} rows=${8}>${(config) => html`
      <${Reached} config=${config} />
      <${Form} key=${config.version} config=${config} reload=${found.reload} />
      <${History} config=${config} reload=${found.reload} />`}<//></div>`;
}

function Reached({ config }) {
  const all = config.applied === config.nodes;
  return html`<p class=${`note-box ${all ? "" : "warn"}`} role="status">
    <strong>Version ${config.version}</strong>${config.version === 0 ? ", as the cluster was started" : ""}: ${all ? "all" : config.applied} of ${config.nodes} nodes work with it${all ? "." : "; the others follow within seconds."}
  </p>`;
}

function Form({ config, reload }) {
  const writes = may("config:write");
  const properties = Object.entries(config.json_schema.properties || {});
  const [texts, setTexts] = useState(() => Object.fromEntries(Object.entries(config.values).map(([key, value]) => [key, value === null ? "none" : typeof value === "object" ? JSON.stringify(value) : String(value)])));
  const [reviewing, setReviewing] = useState(false);
  const { values, wrong } = useMemo(() => {
    const good = {};
    const bad = {};
    for (const [key, text] of Object.entries(texts)) {
      try {
        good[key] = parse(text, kindOf(config.json_schema.properties[key] || { type: "string" }));
      } catch (error) {
        bad[key] = error.message;
      }
    }
    return { values: good, wrong: bad };
  }, [texts]);
  const changes = differences(config.values, values);
  const put = (key) => (text) => setTexts({ ...texts, [key]: text });
  const drop = (key) => () => setTexts(Object.fromEntries(Object.entries(texts).filter(([one]) => one !== key)));
  const actions = writes
    ? html`${changes.length ? html`<span class="fine">${changes.length} changed</span>` : null}
        <${Button} kind="primary" disabled=${!changes.length || Object.keys(wrong).length > 0} onClick=${() => setReviewing(true)}>Review changes<//>`
    : null;
  return html`<${Panel} title="Settings" actions=${actions} flush>
    ${properties.length ? null : html`<${Empty} title="No live settings" />`}
    <div class="settings">
      ${properties.map(([key, schema], i) => html`
        ${section(key) === section(properties[i - 1]?.[0]) ? null : html`<h3 class="section">${section(key)}</h3>`}
        <${Setting} key=${key} name=${key} schema=${schema} text=${texts[key]} error=${wrong[key]} effective=${lookup(config.effective, key)}
          changed=${changes.some((one) => one.key === key)} put=${put(key)} drop=${drop(key)} writes=${writes} />`)}
    </div>
    ${reviewing ? html`<${Review} config=${config} values=${values} close=${() => setReviewing(false)} reload=${reload} />` : null}
  <//>`;
}

function Setting({ name, schema, text, error, effective, changed, put, drop, writes }) {
  const kind = kindOf(schema);
  const id = `setting-${name}`;
  const set = text !== undefined;
  const common = { id, "aria-invalid": error ? "true" : undefined, "aria-describedby": `${id}-hint`, disabled: !writes };
  const choices = kind.boolean ? [true, false] : kind.choices;
  const input = choices
    ? html`<select ...${common} value=${text ?? ""} onChange=${(e) => (e.currentTarget.value ? put(e.currentTarget.value) : drop())}>
        <option value="" selected=${!set}>as at the start</option>
        ${choices.map((choice) => html`<option value=${String(choice)} selected=${text === String(choice)}>${String(choice)}</option>`)}
      </select>`
    : html`<input ...${common} type="text" inputmode=${kind.number ? "decimal" : undefined} value=${text ?? ""} placeholder=${`${shown(effective)} (as at the start)`}
        onInput=${(e) => (e.currentTarget.value === "" ? drop() : put(e.currentTarget.value))} />`;
  return html`<div class=${`setting${changed ? " changed" : ""}`}>
    <div>
      <label class="name" for=${id}><code>${name}</code>${changed ? html` <${Tag} tone="info">changed<//>` : set ? html` <${Tag}>set<//>` : null}</label>
      <p class="hint" id=${`${id}-hint`}>${described(schema.description || "")} Now: <strong>${shown(effective)}</strong>${schema.default !== undefined && JSON.stringify(schema.default) !== JSON.stringify(effective) ? `; default ${shown(schema.default)}` : ""}.${kind.nullable ? " “none” is a value." : ""}</p>
    </div>
    <div>
      <div class="line">${input}${set && writes && !choices ? html`<${Button} icon="close" kind="plain" label=${`${name}: as at the start`} onClick=${drop} />` : null}</div>
      ${error ? html`<p class="error">${error}</p>` : null}
    </div>
  </div>`;
}

function Review({ config, values, close, reload }) {
  const [comment, setComment] = useState("");
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState(null);
  const submit = async (event) => {
    event.preventDefault();
    setBusy(true);
    setError(null);
    try {
      const made = await ask("PUT", "/config", { body: { values, comment }, version: config.version });
      say(`Version ${made.version} is on its way to the nodes`);
      close();
      reload();
    } catch (caught) {
      setError(caught);
      setBusy(false);
    }
  };
  return html`<${Dialog} title="Review changes" onClose=${close} wide>
    <form class="content" onSubmit=${submit}>
      <${Diff} before=${config.values} after=${values} labels=${[`Version ${config.version}`, `Version ${config.version + 1}`]} />
      <${TextField} label="Comment" optional value=${comment} onChange=${setComment} maxlength="2000" />
      <${ProblemBox} error=${error} />
      <footer><${Button} onClick=${close}>Back<//><${Button} type="submit" kind="primary" busy=${busy}>Apply to the cluster<//></footer>
    </form>
  <//>`;
}

function History({ config, reload }) {
  const pages = usePages("/config/versions", {}, 20);
  const [looking, setLooking] = useState(null);
  useEffect(() => pages.reload(), [config.version]);
  const back = (version) =>
    confirm(`Back to version ${version}?`, {
      text: "Its values become a new version, which goes to all nodes.",
      action: "Roll back",
      tone: "primary",
      act: async () => {
        const made = await post(`/config/rollback/${version}`);
        say(`Version ${made.version} has the values of version ${version}`);
        reload();
      },
    });
  const columns = [
    { key: "version", label: "Version", lead: true, cell: (row) => html`Version ${row.version} ${row.version === config.version ? html`<${State} state="active" label="In force" />` : null}${row.rollback_of != null ? html` <span class="faint">values of ${row.rollback_of}</span>` : null}` },
    { key: "comment", label: "Comment", cell: (row) => row.comment || html`<span class="faint">–</span>` },
    { key: "by", label: "By", cell: (row) => row.created_by.name },
    { key: "at", label: "When", num: true, cell: (row) => html`<${Time} at=${row.created_at} />` },
    { key: "act", label: "Actions", act: true, cell: (row) => html`<span class="row-actions">
      <${Button} onClick=${() => setLooking(row)}>Compare<//>
      ${may("config:write") && row.version !== config.version ? html`<${Button} icon="retry" onClick=${() => back(row.version)}>Roll back<//>` : null}
    </span>` },
  ];
  const start = may("config:write") && config.version > 0 ? html`<${Button} onClick=${() => back(0)}>Reset to defaults<//>` : null;
  return html`<${Panel} title="History" actions=${start} flush>
    <${PagedTable} pages=${pages} label="Versions" columns=${columns} id=${(row) => row.version} empty=${html`<${Empty} title="No versions yet" />`} />
    ${looking
      ? html`<${Dialog} title=${`Version ${looking.version} and what is in force`} onClose=${() => setLooking(null)} wide>
          <div class="content"><${Diff} before=${config.values} after=${looking.values} labels=${[`In force (${config.version})`, `Version ${looking.version}`]} />
          <details><summary>All its values</summary><pre class="document" tabindex="0">${JSON.stringify(looking.values, null, 2)}</pre></details></div>
        <//>`
      : null}
  <//>`;
}
