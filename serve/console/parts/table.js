// Lists: columns that say how they look on a phone, pages by cursor, filters in the address.

import { html, useCallback, useEffect, useLocation, useMemo, useSearch, useState } from "../vendor/ui.js";
import { query } from "../lib/api.js";
import { useResource, useSettled } from "../lib/hooks.js";
import { Button, Empty, Loading, ProblemBox } from "./basics.js";
import { Icon } from "./icons.js";

/**
 * `columns`: {key, label, cell(row), num, sort, lead, narrow}. On a phone each row is a card: `lead` is its
 * heading, `narrow: false` is left out. The roles are written out because cards are no tables to a browser.
 */
export function DataTable({ label, columns, rows, id = (row) => row.id, sort, onSort, busy = false }) {
  return html`<div class="table-frame">
    <table class="data" role="table" aria-label=${label} aria-busy=${busy}>
      <thead role="rowgroup">
        <tr role="row">
          ${columns.map((column) => html`<${Heading} key=${column.key} column=${column} sort=${sort} onSort=${onSort} />`)}
        </tr>
      </thead>
      <tbody role="rowgroup">
        ${rows.map(
          (row) => html`<tr role="row" key=${id(row)}>
            ${columns.map(
              (column) => html`<td
                role="cell"
                key=${column.key}
                class=${cellClass(column)}
                data-label=${column.label}
              >${column.cell(row)}</td>`,
            )}
          </tr>`,
        )}
      </tbody>
    </table>
  </div>`;
}

export const cellClass = (column) =>
  [column.num && "num", column.lead && "lead", column.narrow === false && "not-narrow", column.act && "act"]
    .filter(Boolean)
    .join(" ");

function Heading({ column, sort, onSort }) {
  const name = column.sort;
  const text = column.act ? html`<span class="unseen">${column.label}</span>` : column.label;
  if (!name || !onSort) return html`<th role="columnheader" scope="col" class=${cellClass(column)}>${text}</th>`;
  const direction = sort === name ? "ascending" : sort === `-${name}` ? "descending" : "none";
  const next = direction === "descending" ? name : `-${name}`;
  return html`<th role="columnheader" scope="col" class=${cellClass(column)} aria-sort=${direction}>
    <button type="button" class="sort" onClick=${() => onSort(next)}>
      ${text}
      <${Icon} name=${direction === "ascending" ? "up" : "down"} size=${11} />
    </button>
  </th>`;
}

/** What the address says behind `?`, and how to change it. Empty values are left out of it. */
export function useFilters() {
  const text = useSearch();
  const [path, navigate] = useLocation();
  const values = useMemo(() => Object.fromEntries(new URLSearchParams(text)), [text]);
  const change = useCallback(
    (changes) => navigate(path + query({ ...values, ...changes }), { replace: true }),
    [path, values, navigate],
  );
  return [values, change];
}

/** A list of the API, page by page. `params` belong to it; another one begins at its first page. */
export function usePages(path, params, limit = 50) {
  const base = query({ ...params, limit });
  const [trail, setTrail] = useState({ base, cursors: [] });
  const cursors = trail.base === base ? trail.cursors : [];
  const cursor = cursors.at(-1);
  const found = useResource(path && path + base + (cursor ? `&cursor=${encodeURIComponent(cursor)}` : ""));
  return {
    ...found,
    rows: found.data?.items,
    page: cursors.length + 1,
    next: found.data?.next_cursor ? () => setTrail({ base, cursors: [...cursors, found.data.next_cursor] }) : null,
    back: cursors.length ? () => setTrail({ base, cursors: cursors.slice(0, -1) }) : null,
  };
}

/** A paged table in each of its states. */
export function PagedTable({ pages, empty, ...table }) {
  if (pages.error && !pages.rows) return html`<${ProblemBox} error=${pages.error} again=${pages.reload} />`;
  if (!pages.rows) return html`<${Loading} rows=${6} label=${`Loading ${table.label}`} />`;
  if (!pages.rows.length && pages.page === 1) return empty || html`<${Empty} title="Nothing here" />`;
  return html`<${ProblemBox} error=${pages.error} again=${pages.reload} />
    <${DataTable} ...${table} rows=${pages.rows} busy=${pages.loading} />
    <${Pager} pages=${pages} />`;
}

function Pager({ pages }) {
  if (!pages.next && !pages.back) return null;
  return html`<nav class="pager" aria-label="Pages">
    <span>Page ${pages.page}</span>
    <${Button} icon="left" onClick=${pages.back} disabled=${!pages.back} label="Previous page" />
    <${Button} icon="right" onClick=${pages.next} disabled=${!pages.next} label="Next page" />
  </nav>`;
}

/** A filter by text that waits until the typing stops. */
export function SearchBox({ label, value, onChange, placeholder }) {
  const [text, setText] = useState(value || "");
  const settled = useSettled(text, 300);
  useEffect(() => {
    if (settled !== (value || "")) onChange(settled);
  }, [settled]);
  return html`<label class="search">
    <span class="unseen">${label}</span>
    <${Icon} name="search" size=${14} />
    <input type="search" value=${text} placeholder=${placeholder || label} onInput=${(e) => setText(e.currentTarget.value)} />
  </label>`;
}

export function SelectFilter({ label, value, onChange, options }) {
  return html`<label class="select-filter">
    <span>${label}</span>
    <select value=${value || ""} onChange=${(e) => onChange(e.currentTarget.value)}>
      ${options.map(([key, text]) => html`<option value=${key} selected=${key === (value || "")}>${text}</option>`)}
    </select>
  </label>`;
}
