// What a distribution or a preheat asks for: the fields, what they make, and what is wrong with it.

import { html, useEffect, useState } from "../vendor/ui.js";
import { may, post } from "../lib/api.js";
import { bytes, plural } from "../lib/format.js";
import { useResource, useSettled } from "../lib/hooks.js";
import { Icon } from "./icons.js";
import { Check, Choice, SelectField, TextField } from "./form.js";
import { ProblemBox } from "./basics.js";

const MODES = [
  ["all", "All nodes"],
  ["seeds", "Seeds"],
  ["count", "A number"],
  ["share", "A share"],
  ["labels", "By labels"],
  ["named", "Named"],
];
/** What becomes of symlinks in a folder. */
export const LINKS = {
  refuse: "Refuse those that point outside the folder",
  follow: "Follow: deliver their targets",
  keep: "Keep as links",
};
const lines = (text) => text.split("\n").map((line) => line.trim()).filter(Boolean);

/** The form's fields from a request as the API knows it. */
export function fieldsOf(request = {}) {
  const { nodes = "all" } = request;
  const found = {
    name: request.name || "",
    urls: (request.urls || []).join("\n"),
    dest: request.dest || "",
    link: request.link ?? true,
    digest: request.digest || "",
    include: (request.include || []).join("\n"),
    exclude: (request.exclude || []).join("\n"),
    secret: request.secret || "",
    tag: request.tag || "",
    application: request.application || "",
    filtered: (request.filtered_query_params || []).join("\n"),
    links: request.links || "refuse",
    mode: "all",
    count: "1",
    share: "10",
    labels: "",
    named: "",
  };
  if (nodes === "all" || nodes === "seeds") found.mode = nodes;
  else if (typeof nodes === "number") Object.assign(found, { mode: "count", count: String(nodes) });
  else if (typeof nodes === "string" && nodes.endsWith("%")) Object.assign(found, { mode: "share", share: nodes.slice(0, -1) });
  else if (typeof nodes === "string") Object.assign(found, { mode: "named", named: nodes });
  else if (Array.isArray(nodes)) Object.assign(found, { mode: "named", named: nodes.map((n) => (typeof n === "object" ? JSON.stringify(n) : n)).join("\n") });
  else Object.assign(found, { mode: "labels", labels: Object.entries(nodes).map(([k, v]) => `${k}=${v}`).join("\n") });
  return found;
}

function nodesOf(fields) {
  switch (fields.mode) {
    case "count":
      return Number(fields.count);
    case "share":
      return `${fields.share}%`;
    case "labels":
      return Object.fromEntries(lines(fields.labels).map((line) => {
        const at = line.indexOf("=");
        return at < 0 ? [line, ""] : [line.slice(0, at).trim(), line.slice(at + 1).trim()];
      }));
    case "named":
      return lines(fields.named).map((line) => (line.startsWith("{") ? JSON.parse(line) : line));
    default:
      return fields.mode;
  }
}

/** The request's body. Empty members are left out: their defaults are the manager's. */
export function requestOf(fields, kind) {
  const body = { urls: lines(fields.urls), nodes: nodesOf(fields) };
  const optional = { name: fields.name.trim(), digest: fields.digest.trim(), secret: fields.secret, tag: fields.tag.trim(), application: fields.application.trim() };
  for (const [key, value] of Object.entries(optional)) if (value) body[key] = value;
  const lists = { include: fields.include, exclude: fields.exclude, filtered_query_params: fields.filtered };
  for (const [key, text] of Object.entries(lists)) if (lines(text).length) body[key] = lines(text);
  if (fields.links !== "refuse") body.links = fields.links;
  if (kind === "distribution") {
    if (fields.dest.trim()) body.dest = fields.dest.trim();
    if (!fields.link) body.link = false;
  }
  return body;
}

/** What can be told without asking: field -> message. */
export function mistakes(fields, kind) {
  const found = {};
  const urls = lines(fields.urls);
  if (!urls.length) found.urls = "At least one URL.";
  const odd = urls.find((url) => !/^[a-z][a-z0-9+.-]*:\/\/\S+$/i.test(url));
  if (odd) found.urls = `Not a URL: ${odd.slice(0, 80)}`;
  if (new Set(urls).size !== urls.length) found.urls = "Duplicate URL.";
  if (fields.mode === "count" && !(Number.isInteger(Number(fields.count)) && Number(fields.count) >= 1)) found.nodes = "A whole number from 1.";
  if (fields.mode === "share" && !(Number(fields.share) > 0 && Number(fields.share) <= 100)) found.nodes = "A share above 0 and up to 100.";
  if (fields.mode === "labels" && !lines(fields.labels).length) found.nodes = "At least one label, as key=value.";
  if (fields.mode === "named") {
    if (!lines(fields.named).length) found.nodes = "At least one node.";
    try {
      nodesOf(fields);
    } catch {
      found.nodes = "A line that begins with { must be JSON.";
    }
  }
  if (kind === "distribution" && fields.dest && !fields.dest.trim().startsWith("/")) found.dest = "An absolute path, such as /data/{name}.";
  if (fields.digest && !/^[a-z0-9]+:[0-9a-f]+$/i.test(fields.digest.trim())) found.digest = "As algorithm:hex.";
  else if (fields.digest && urls.length > 1) found.digest = "Only for one URL.";
  return found;
}

/** Asks the manager what it would do, once the typing stops. */
export function useCheck(kind, fields, wrong) {
  const clean = Object.keys(wrong).length === 0;
  const body = useSettled(clean ? JSON.stringify(requestOf(fields, kind)) : "", 450);
  const [answer, setAnswer] = useState({ body: null });
  useEffect(() => {
    if (!body) return undefined;
    const aborting = new AbortController();
    post(`/${kind}s/check`, JSON.parse(body), { signal: aborting.signal }).then(
      (found) => setAnswer({ body, found, error: null }),
      (error) => error.name !== "AbortError" && setAnswer({ body, found: null, error }),
    );
    return () => aborting.abort();
  }, [body, kind]);
  return { ...answer, pending: clean && answer.body !== body, clean };
}

const problemText = (problem) => (typeof problem === "string" ? problem : problem.detail || problem.message || problem.what || problem.title);

export function CheckResult({ check }) {
  let content;
  if (!check.clean) content = html`<p class="faint">A dry run is shown here as soon as the form is complete.</p>`;
  else if (check.pending || (!check.found && !check.error)) content = html`<p class="faint"><${Icon} name="run" size=${13} spin /> Asking the manager…</p>`;
  else if (check.error) return html`<div aria-live="polite"><${ProblemBox} error=${check.error} /></div>`;
  else {
    const { nodes, size, problems } = check.found;
    return html`<div class=${`note-box ${problems.length ? "warn" : "good"}`} aria-live="polite">
      <p><strong>Reaches ${plural(nodes.length, "node")}</strong>${size == null ? "" : `, ${bytes(size)} on each`}.</p>
      ${problems.length ? html`<ul>${problems.map((problem) => html`<li>${problemText(problem)}</li>`)}</ul>` : null}
    </div>`;
  }
  return html`<div class="note-box" aria-live="polite">${content}</div>`;
}

export function JobFields({ kind, fields, change, wrong, shown = true }) {
  const secrets = useResource(may("secrets:read") ? "/secrets?usable=true&limit=200" : null);
  const nodes = useResource(may("nodes:read") ? "/nodes?limit=500" : null);
  const put = (key) => (value) => change({ [key]: value });
  const error = (key) => (shown ? wrong[key] : undefined);
  // A name that several nodes share means all of them: of those the id is given.
  const picks = (nodes.data?.items || []).map((node) => ({ value: node.shown_name === node.name ? node.name : node.node_id, text: node.shown_name }));
  const labels = [...new Set((nodes.data?.items || []).flatMap((node) => Object.entries(node.labels).map(([k, v]) => `${k}=${v}`)))].slice(0, 24);
  const put_line = (key, line) => change({ [key]: [...lines(fields[key]).filter((one) => one !== line), line].join("\n") });
  return html`
    <${TextField} label="URLs" lines=${3} value=${fields.urls} onChange=${put("urls")} error=${error("urls")} required spellcheck="false"
      hint="One a line. A folder ends with /. Any source that the cluster opens: https, s3, gs, az, hdfs." placeholder="https://host/weights.bin" />
    <div class="field">
      <${Choice} legend="Nodes" options=${MODES} value=${fields.mode} onChange=${put("mode")} />
      ${fields.mode === "count" ? html`<${TextField} label="How many nodes" type="number" min="1" value=${fields.count} onChange=${put("count")} error=${error("nodes")} />` : null}
      ${fields.mode === "share" ? html`<${TextField} label="Share in percent" type="number" min="1" max="100" value=${fields.share} onChange=${put("share")} error=${error("nodes")} />` : null}
      ${fields.mode === "labels"
        ? html`<${TextField} label="Labels" lines=${2} value=${fields.labels} onChange=${put("labels")} error=${error("nodes")} hint="key=value, one a line; a node must have all of them." spellcheck="false" />
            <${Chips} items=${labels.map((label) => ({ value: label, text: label }))} what="Available labels" onPick=${(label) => put_line("labels", label)} />`
        : null}
      ${fields.mode === "named"
        ? html`<${TextField} label="Names, addresses or ids" lines=${3} value=${fields.named} onChange=${put("named")} error=${error("nodes")} hint="One a line." spellcheck="false" />
            <${Chips} items=${picks.slice(0, 24)} what="Available nodes" onPick=${(name) => put_line("named", name)} />`
        : null}
    </div>
    ${kind === "distribution"
      ? html`<${TextField} label="Destination" optional value=${fields.dest} onChange=${put("dest")} error=${error("dest")} spellcheck="false"
          hint=${html`Absolute path on each node, below a root that the manager allows; <code>{name}</code> and <code>{node}</code> are filled in. Without it the content stays in the stores.`} />`
      : null}
    <div class="pair">
      <${TextField} label="Name" optional value=${fields.name} onChange=${put("name")} maxlength="256" hint="For people." />
      ${may("secrets:read") && !secrets.error
        ? html`<${SelectField} label="Secret" optional value=${fields.secret} onChange=${put("secret")} hint="The credentials that open the source."
            options=${[["", "none"], ...(secrets.data?.items || []).map((secret) => [secret.name, secret.name])]} />`
        : html`<${TextField} label="Secret" optional value=${fields.secret} onChange=${put("secret")} hint="The name of the credentials that open the source." />`}
    </div>
    <details>
      <summary>More</summary>
      <div class="form">
        <${TextField} label="Digest" optional value=${fields.digest} onChange=${put("digest")} error=${error("digest")} spellcheck="false" placeholder="sha256:…" hint="Checked before the content is visible. For one file." />
        <div class="pair">
          <${TextField} label="Include" optional lines=${2} value=${fields.include} onChange=${put("include")} hint="Glob patterns of paths inside a folder, one per line." spellcheck="false" />
          <${TextField} label="Exclude" optional lines=${2} value=${fields.exclude} onChange=${put("exclude")} hint="Glob patterns of paths to leave out, one per line." spellcheck="false" />
        </div>
        <div class="pair">
          <${TextField} label="Tag" optional value=${fields.tag} onChange=${put("tag")} hint="Keeps copies of the same URL apart." />
          <${TextField} label="Application" optional value=${fields.application} onChange=${put("application")} />
        </div>
        <${TextField} label="Ignored query parameters" optional lines=${2} value=${fields.filtered} onChange=${put("filtered")} hint="Signatures and the like, which differ for the same content. One per line." spellcheck="false" />
        <${SelectField} label="Symlinks" value=${fields.links} onChange=${put("links")} options=${Object.entries(LINKS)} hint="In a folder. Those that point outside it are always refused." />
        ${kind === "distribution"
          ? html`<${Check} label="Share blocks with the store" checked=${fields.link} onChange=${put("link")} hint="Outputs are read-only hard links or shared blocks; otherwise private copies." />`
          : null}
      </div>
    </details>`;
}

function Chips({ items, what, onPick }) {
  if (!items.length) return null;
  return html`<ul class="tags" aria-label=${what}>
    ${items.map((item) => html`<li><button type="button" class="tag idle chip" onClick=${() => onPick(item.value)} aria-label=${`Add ${item.text}`}>+ ${item.text}</button></li>`)}
  </ul>`;
}
