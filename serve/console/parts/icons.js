// Line icons on a grid of 16. Decoration always: the text beside them, or a label, tells the same.

import { html } from "../vendor/ui.js";

const PATHS = {
  overview: "M2 13h12M4 11V7m4 4V3m4 8V5",
  distributions: "M8 2v5m0 0L3.5 10M8 7l4.5 3M8 1.5h0M2 12.5h3v-3H2zM11 12.5h3v-3h-3zM6.5 14.5h3v-3h-3z",
  preheats: "M8 14c3 0 4.5-2 4.5-4.5C12.5 6 9 5 9 1.5 6.5 3 6 5 6.5 7 5.5 6.8 5 6 5 5.5 4 6.5 3.5 8 3.5 9.5 3.5 12 5 14 8 14z",
  schedules: "M8 14A6 6 0 1 0 8 2a6 6 0 0 0 0 12zM8 4.5V8l2.5 1.5",
  tasks: "M8 1.5 14 5v6l-6 3.5L2 11V5zM2 5l6 3.5L14 5M8 8.5v6",
  nodes: "M2 3h12v4H2zM2 9h12v4H2zM4.5 5h.01M4.5 11h.01",
  config: "M2 4h6m4 0h2M2 8h2m4 0h6M2 12h7m4 0h1M10 2.5v3M6 6.5v3M11 10.5v3",
  secrets: "M6 10.5a3 3 0 1 1 0-5 3 3 0 0 1 1.5 2.5H14v2.5h-2V8M5 8h.01",
  webhooks: "M6 8a3 3 0 1 1 3.5-3M8 5l-2.5 5M10 5.5l2.5 4M5 13a3 3 0 1 1-1-5M6 11h4.5M11 8.5a3 3 0 1 1-1.5 5",
  users: "M6 7.5A2.5 2.5 0 1 0 6 2.5a2.5 2.5 0 0 0 0 5zM1.5 13.5c0-2.5 2-4 4.5-4s4.5 1.5 4.5 4M11 3a2.3 2.3 0 0 1 0 4.4M12.5 9.8c1.3.6 2 1.9 2 3.7",
  roles: "M8 1.5 13.5 4v4c0 3-2.3 5.3-5.5 6.5C4.8 13.3 2.5 11 2.5 8V4zM5.5 8 7.5 10 11 6",
  tokens: "M4 2.5h8v11H4zM6.5 5.5h3M6.5 8h3M6.5 10.5h1.5",
  audit: "M3 2h7l3 3v9H3zM10 2v3h3M5.5 8h5M5.5 11h5",
  menu: "M2 4h12M2 8h12M2 12h12",
  close: "m3.5 3.5 9 9m0-9-9 9",
  sun: "M8 11a3 3 0 1 0 0-6 3 3 0 0 0 0 6zM8 1v1.5M8 13.5V15M1 8h1.5M13.5 8H15M3 3l1 1M12 12l1 1M3 13l1-1M12 4l1-1",
  moon: "M13.5 9.5A6 6 0 0 1 6.5 2.5a6 6 0 1 0 7 7z",
  copy: "M5.5 5.5h8v8h-8zM10.5 5.5v-3h-8v8h3",
  check: "m3 8.5 3.5 3.5L13 4.5",
  cross: "m4 4 8 8m0-8-8 8",
  dash: "M4 8h8",
  half: "M8 14A6 6 0 1 0 8 2a6 6 0 0 0 0 12zM8 5v3.5M8 11h.01",
  stop: "M8 14A6 6 0 1 0 8 2a6 6 0 0 0 0 12zM4 12l8-8",
  clock: "M8 14A6 6 0 1 0 8 2a6 6 0 0 0 0 12zM8 5v3l2 1.5",
  run: "M13.5 8A5.5 5.5 0 1 1 8 2.5",
  plus: "M8 3v10M3 8h10",
  retry: "M13 3v3.5H9.5M12.8 6.5A5.3 5.3 0 1 0 13 10",
  trash: "M2.5 4h11M6 4V2.5h4V4M4 4l.7 9.5h6.6L12 4M6.5 6.5v4.5M9.5 6.5v4.5",
  pin: "M8 9.5V14M4 9.5h8L10.5 7V2.5h-5V7z",
  right: "m6 3 5 5-5 5",
  left: "m10 3-5 5 5 5",
  down: "m3 6 5 5 5-5",
  up: "m3 10 5-5 5 5",
  search: "M7 12A5 5 0 1 0 7 2a5 5 0 0 0 0 10zM10.8 10.8 14 14",
  out: "M6 2.5H2.5v11H6M10.5 11l3-3-3-3M13.5 8H6",
  external: "M9 2.5h4.5V7M13.5 2.5 7.5 8.5M11.5 9.5v4h-9v-9h4",
  play: "M4.5 2.5 13 8l-8.5 5.5z",
  pause: "M5 3v10M11 3v10",
  key: "M6 10.5a3 3 0 1 1 0-5 3 3 0 0 1 1.5 2.5H14v2.5h-2V8",
};

export function Icon({ name, size = 16, spin = false }) {
  return html`<svg
    class=${`icon${spin ? " spin" : ""}`}
    width=${size}
    height=${size}
    viewBox="0 0 16 16"
    fill="none"
    stroke="currentColor"
    stroke-width="1.5"
    stroke-linecap="round"
    stroke-linejoin="round"
    aria-hidden="true"
    focusable="false"
  >
    <path d=${PATHS[name]} />
  </svg>`;
}

export function Mark({ size = 24 }) {
  return html`<svg class="mark" width=${size} height=${size} viewBox="0 0 32 32" fill="none" aria-hidden="true">
    <g fill="var(--peers)">
      <path d="M15 11C11 5 5 3 2 5c-2 3 5 8 13 8z" />
      <path d="M17 11c4-6 10-8 13-6 2 3-5 8-13 8z" />
      <path d="M15 14c-6 0-10 3-10 6 1 3 7 1 10-4z" opacity="0.65" />
      <path d="M17 14c6 0 10 3 10 6-1 3-7 1-10-4z" opacity="0.65" />
    </g>
    <circle cx="16" cy="8.5" r="2.5" fill="var(--accent-strong)" />
    <path d="M16 11v19" stroke="var(--accent-strong)" stroke-width="2.6" stroke-linecap="round" />
  </svg>`;
}
