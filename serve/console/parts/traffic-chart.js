// Bytes a second by where they came from, stacked, over time.

import { html, useEffect, useRef, useState } from "../vendor/ui.js";
import { uPlot } from "../vendor/uplot.js";
import { absolute, rate, SOURCES } from "../lib/format.js";
import { theme } from "./frame.js";

const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** Sums from the bottom up, and the bands between them. Series are drawn from the top one down. */
function stacked(series) {
  const [times, ...rates] = series;
  const sums = [];
  for (const [index, values] of rates.entries()) {
    const below = sums[index - 1];
    sums.push(below ? values.map((value, i) => value + below[i]) : values);
  }
  return [times, ...sums.reverse()];
}

/** Steps that are round in KiB, MiB, …. */
const STEPS = Array.from({ length: 50 }, (_, power) => 2 ** power);

const two = (number) => String(number).padStart(2, "0");

/** The time of day; days where they begin. */
function clockTimes(_, splits, __, ___, step) {
  return splits.map((seconds) => {
    const at = new Date(seconds * 1000);
    const midnight = at.getHours() === 0 && at.getMinutes() === 0;
    if (step >= 43_200 || midnight) return at.toLocaleDateString("en-GB", { day: "numeric", month: "short" });
    return `${two(at.getHours())}:${two(at.getMinutes())}${step < 60 ? `:${two(at.getSeconds())}` : ""}`;
  });
}

function options(width, height, onTip) {
  const axis = { stroke: css("--muted"), grid: { stroke: css("--line"), width: 1 }, ticks: { show: false }, font: "12px Geist, sans-serif" };
  const drawn = [...SOURCES].reverse();
  return {
    width,
    height,
    padding: [10, 4, 0, 0],
    cursor: { y: false, points: { size: 6 } },
    legend: { show: false },
    scales: { y: { range: (_, __, most) => [0, Math.max(most * 1.08, 1024)] } },
    axes: [
      { ...axis, grid: { show: false }, space: 80, size: 26, values: clockTimes },
      { ...axis, size: 78, space: 44, incrs: STEPS, values: (_, splits) => splits.map((value) => (value ? rate(value) : "0")) },
    ],
    series: [
      {},
      ...drawn.map(({ label, colour }) => ({ label, stroke: css(colour), width: 1.25, fill: `${css(colour)}b0`, points: { show: false } })),
    ],
    bands: drawn.slice(1).map((_, i) => ({ series: [i + 1, i + 2] })),
    hooks: { setCursor: [(plot) => onTip(plot.cursor.idx == null ? null : { index: plot.cursor.idx, left: plot.cursor.left })] },
  };
}

/** `series`: [seconds, origin, peers, cache, object store], each an array. */
export function TrafficChart({ series, label, height = 250 }) {
  const frame = useRef(null);
  const plot = useRef(null);
  const latest = useRef(series);
  latest.current = series;
  const [tip, setTip] = useState(null);
  const scheme = theme.value;
  useEffect(() => {
    plot.current = new uPlot(options(frame.current.clientWidth, height, setTip), stacked(latest.current), frame.current);
    // For whoever looks at what is drawn.
    frame.current.plot = plot.current;
    const sized = new ResizeObserver(([entry]) => plot.current.setSize({ width: entry.contentRect.width, height }));
    sized.observe(frame.current);
    return () => {
      sized.disconnect();
      plot.current.destroy();
    };
  }, [scheme, height]);
  useEffect(() => plot.current.setData(stacked(series)), [series]);
  const known = tip && series[0][tip.index] !== undefined;
  return html`<div class="chart" style=${{ minHeight: `${height}px` }}>
    <div ref=${frame} role="img" aria-label=${label}></div>
    ${known
      ? html`<div class="chart-tip" style=${{ left: `${tip.left > frame.current.clientWidth / 2 ? tip.left - 120 : tip.left + 96}px`, top: "12px" }}>
          <strong>${absolute(series[0][tip.index] * 1000)}</strong>
          ${SOURCES.map(
            ({ key, label: text }, i) => html`<div class="row"><span class=${`swatch ${key}`}></span><span>${text}</span><span>${rate(series[i + 1][tip.index])}</span></div>`,
          )}
        </div>`
      : null}
  </div>`;
}
