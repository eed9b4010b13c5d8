// Nodes by pieces on a canvas: a row a node (or several nodes), a pixel a cell. Only rows that changed are drawn.

import { html, useEffect, useMemo, useRef, useState } from "../vendor/ui.js";
import { count, percent, plural } from "../lib/format.js";
import { theme } from "./frame.js";

const TALLEST = 480;
const ROW = 18;

const RARITY = 26;

function rgb(name) {
  const probe = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  probe.fillStyle = getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  probe.fillRect(0, 0, 1, 1);
  return probe.getImageData(0, 0, 1, 1).data;
}

/** 256 colours as the pixels that ImageData holds, from empty to full. */
function ramp(from, to) {
  const bytes = new Uint8ClampedArray(1024);
  for (let i = 0; i < 256; i += 1) {
    // What is there at all must be seen: the first step is a big one.
    const share = i === 0 ? 0 : 0.22 + 0.78 * (i / 255) ** 1.15;
    for (let c = 0; c < 3; c += 1) bytes[i * 4 + c] = from[c] + (to[c] - from[c]) * share;
    bytes[i * 4 + 3] = 255;
  }
  return new Uint32Array(bytes.buffer);
}

/** Draws a grid onto a canvas of as many pixels as cells and rows; CSS makes it as big as it should be. */
export class Painter {
  constructor(canvas, rarity, grid) {
    this.canvas = canvas;
    this.grid = grid;
    this.context = canvas.getContext("2d", { alpha: false });
    this.rarity = rarity.getContext("2d");
    this.rowsDrawn = 0;
    this.frames = 0;
    this.resize();
  }

  resize() {
    const { grid } = this;
    const nodes = Math.max(grid.ids.length, 1);
    this.each = Math.max(1, Math.ceil(nodes / TALLEST));
    this.lines = Math.ceil(nodes / this.each);
    this.high = Math.max(1, Math.min(ROW, Math.floor(TALLEST / this.lines)));
    this.gap = this.high >= 6 ? 1 : 0;
    this.canvas.width = grid.cells;
    this.canvas.height = this.lines * this.high;
    this.canvas.style.height = `${this.lines * this.high}px`;
    this.rarity.canvas.width = grid.cells;
    this.rarity.canvas.height = RARITY;
    this.image = this.context.createImageData(grid.cells, this.high);
    this.pixels = new Uint32Array(this.image.data.buffer);
    this.sums = new Uint32Array(grid.cells);
    this.colours();
  }

  colours() {
    const surface = rgb("--surface");
    this.full = rgb("--peers");
    this.ramp = ramp(rgb("--sunken"), this.full);
    this.between = new Uint32Array(new Uint8ClampedArray([...surface.slice(0, 3), 255]).buffer)[0];
    this.context.fillStyle = `rgb(${surface[0]} ${surface[1]} ${surface[2]})`;
    this.context.fillRect(0, 0, this.canvas.width, this.canvas.height);
    this.waiting = new Set(Array.from({ length: this.lines }, (_, line) => line));
  }

  /** Takes what has changed in the grid. */
  take() {
    const { grid } = this;
    if (grid.grown) {
      grid.grown = false;
      grid.dirty.clear();
      this.resize();
      return;
    }
    for (const row of grid.dirty) this.waiting.add(Math.floor(row / this.each));
    grid.dirty.clear();
  }

  /** Draws for some milliseconds. Says whether anything is left. */
  draw(until) {
    this.frames += 1;
    for (const line of this.waiting) {
      this._line(line);
      this.waiting.delete(line);
      if (performance.now() > until) return true;
    }
    this._rarity();
    return false;
  }

  _line(line) {
    const { grid, each, pixels, ramp: colours, high, gap } = this;
    const { cells, data } = grid;
    const first = line * each;
    const last = Math.min(first + each, grid.ids.length);
    const rows = Math.max(last - first, 1);
    const { sums } = this;
    sums.fill(0);
    for (let row = first; row < last; row += 1) {
      const start = row * cells;
      for (let c = 0; c < cells; c += 1) sums[c] += data[start + c];
    }
    for (let c = 0; c < cells; c += 1) pixels[c] = colours[(sums[c] / rows) | 0];
    for (let y = 1; y < high - gap; y += 1) pixels.copyWithin(y * cells, 0, cells);
    if (gap) pixels.fill(this.between, (high - 1) * cells);
    this.context.putImageData(this.image, 0, line * high);
    this.rowsDrawn += 1;
  }

  /** How many copies of each piece there are: what is rare shows as a gap. */
  _rarity() {
    const { rarity: context, grid, full } = this;
    context.clearRect(0, 0, grid.cells, RARITY);
    context.fillStyle = `rgb(${full[0]} ${full[1]} ${full[2]} / 60%)`;
    const most = 255 * Math.max(grid.ids.length, 1);
    for (let c = 0; c < grid.cells; c += 1) {
      const high = Math.round((grid.columns[c] / most) * RARITY);
      if (high) context.fillRect(c, RARITY - high, 1, high);
    }
  }
}

/** `live`: whose cells arrive; `nameOf` and `stateOf` tell a node by its id. */
export function HeatMap({ live, grid, nameOf, stateOf }) {
  const canvas = useRef(null);
  const rarity = useRef(null);
  const painter = useRef(null);
  const [tip, setTip] = useState(null);
  const scheme = theme.value;
  useEffect(() => {
    const made = new Painter(canvas.current, rarity.current, grid);
    painter.current = made;
    // For whoever measures how much is drawn.
    canvas.current.painter = made;
    let frame = 0;
    const paint = () => {
      frame = made.draw(performance.now() + 6) ? requestAnimationFrame(paint) : 0;
    };
    const changed = () => {
      made.take();
      if (!frame) frame = requestAnimationFrame(paint);
    };
    live.onCells.add(changed);
    changed();
    return () => {
      live.onCells.delete(changed);
      cancelAnimationFrame(frame);
    };
  }, [grid, scheme]);
  const tick = live.summaries.value;
  const summary = useMemo(() => `${plural(grid.ids.length, "node")} by ${plural(grid.pieces, "piece")}, ${percent(grid.filled())} filled`, [tick, grid]);

  const point = (event) => {
    const box = canvas.current.getBoundingClientRect();
    const made = painter.current;
    const cell = Math.floor(((event.clientX - box.left) / box.width) * grid.cells);
    const line = Math.floor((event.clientY - box.top) / made.high);
    const ids = grid.ids.slice(line * made.each, (line + 1) * made.each);
    if (!ids.length || cell < 0 || cell >= grid.cells) return setTip(null);
    const x = event.clientX - box.left;
    return setTip({ cell, ids, x: x > box.width - 230 ? x - 220 : x + 16, y: event.clientY - box.top + RARITY + 20 });
  };
  return html`<div class="map" onPointerMove=${point} onPointerLeave=${() => setTip(null)}>
    <canvas class="rarity" ref=${rarity} style=${{ height: `${RARITY}px` }} aria-hidden="true"></canvas>
    <canvas ref=${canvas} class="heat" role="img" aria-label=${`Which node has which pieces: ${summary}. The table of nodes below has the same in numbers.`}></canvas>
    <div class="map-axis">
      <span>Piece 0</span>
      <span>${summary} <span class="ramp" aria-hidden="true"></span> empty to full</span>
      <span>${count(Math.max(grid.pieces - 1, 0))}</span>
    </div>
    ${tip ? html`<${MapTip} tip=${tip} grid=${grid} nameOf=${nameOf} stateOf=${stateOf} />` : null}
  </div>`;
}

function MapTip({ tip, grid, nameOf, stateOf }) {
  const { cell, ids } = tip;
  const from = Math.floor((cell * grid.pieces) / grid.cells);
  const to = Math.max(Math.floor(((cell + 1) * grid.pieces) / grid.cells) - 1, from);
  const share = ids.reduce((total, id) => total + grid.data[grid.rows.get(id) * grid.cells + cell], 0) / (255 * ids.length);
  return html`<div class="map-tip" style=${{ left: `${tip.x}px`, top: `${tip.y}px` }}>
    <strong>${ids.length > 1 ? `${nameOf(ids[0])} … ${nameOf(ids.at(-1))}` : nameOf(ids[0])}</strong>
    ${ids.length === 1 ? html`<span>${stateOf(ids[0])} · </span>` : null}
    ${from === to ? `piece ${count(from)}` : `pieces ${count(from)}–${count(to)}`}, ${percent(share)} here<br />
    <span class="faint">${percent(grid.columns[cell] / (255 * grid.ids.length))} of all copies are there</span>
  </div>`;
}
