// Numbers, sizes and times as people read them.

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
const RELATIVE = new Intl.RelativeTimeFormat("en", { numeric: "auto", style: "narrow" });
const WHOLE = new Intl.NumberFormat("en");
const ABSOLUTE = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "medium" });
const STEPS = [
  [60, "second", 1],
  [3600, "minute", 60],
  [86400, "hour", 3600],
  [86400 * 30, "day", 86400],
  [86400 * 365, "month", 86400 * 30],
  [Infinity, "year", 86400 * 365],
];

export function bytes(value) {
  if (value == null) return "–";
  let unit = 0;
  let left = Math.abs(value);
  while (left >= 1000 && unit < UNITS.length - 1) {
    left /= 1024;
    unit += 1;
  }
  const digits = unit === 0 || left >= 100 ? 0 : left >= 10 ? 1 : 2;
  return `${value < 0 ? "−" : ""}${left.toFixed(digits)} ${UNITS[unit]}`;
}

export const rate = (value) => (value == null ? "–" : `${bytes(value)}/s`);

export const count = (value) => (value == null ? "–" : WHOLE.format(value));

export function plural(value, one, many = `${one}s`) {
  return `${count(value)} ${value === 1 ? one : many}`;
}

export function percent(share, digits = 0) {
  if (share == null || Number.isNaN(share)) return "–";
  const shown = share * 100;
  // What is not whole must not look whole.
  if (share < 1 && shown.toFixed(digits) === "100") return "99 %";
  return `${shown.toFixed(digits)} %`;
}

export function duration(seconds) {
  if (seconds == null || !Number.isFinite(seconds)) return "–";
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 60) return `${Math.round(seconds)} s`;
  if (seconds < 3600) {
    const rest = Math.round(seconds % 60);
    return `${Math.floor(seconds / 60)} min${rest ? ` ${rest} s` : ""}`;
  }
  if (seconds < 86400) {
    const rest = Math.round((seconds % 3600) / 60);
    return `${Math.floor(seconds / 3600)} h${rest ? ` ${rest} min` : ""}`;
  }
  const rest = Math.round((seconds % 86400) / 3600);
  return `${Math.floor(seconds / 86400)} d${rest ? ` ${rest} h` : ""}`;
}

export function ago(iso, now = Date.now()) {
  const seconds = (new Date(iso).getTime() - now) / 1000;
  const distance = Math.abs(seconds);
  if (distance < 5) return "just now";
  const [, unit, size] = STEPS.find(([below]) => distance < below);
  return RELATIVE.format(Math.round(seconds / size), unit);
}

export const absolute = (iso) => ABSOLUTE.format(new Date(iso));

export const short = (id, length = 8) => (id.length > length + 2 ? id.slice(0, length) : id);

/** The last part of a URL, which is what people know it by. */
export function lastPart(url) {
  const path = url.split(/[?#]/)[0].replace(/\/+$/, "");
  const name = path.slice(path.lastIndexOf("/") + 1) || url;
  return url.split(/[?#]/)[0].endsWith("/") ? `${name}/` : name;
}

export const sum = (provenance) =>
  provenance.origin + provenance.peers + provenance.cache + provenance.object_store;

export const SOURCES = [
  { key: "origin", label: "Origin", colour: "--origin" },
  { key: "peers", label: "Peers", colour: "--peers" },
  { key: "cache", label: "Cache", colour: "--cache" },
  { key: "object_store", label: "Object store", colour: "--object-store" },
];

/** How a selector of nodes reads. */
export function selector(nodes) {
  if (nodes === "all") return "all nodes";
  if (typeof nodes === "number") return plural(nodes, "node");
  if (typeof nodes === "string") return /%$/.test(nodes) ? `${nodes} of the nodes` : nodes;
  if (Array.isArray(nodes)) return nodes.length > 3 ? `${nodes.length} named` : nodes.map(selector).join(", ");
  return Object.entries(nodes)
    .map(([key, value]) => `${key}=${value}`)
    .join(", ");
}
