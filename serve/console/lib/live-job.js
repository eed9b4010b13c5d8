// A job while it runs: what its stream tells, kept so that a thousand nodes cost little.
//
// Cells are rows of one array of bytes. A message's rows are decoded in slices of some milliseconds; whoever
// draws asks which rows have changed. The table of nodes hears of changes twice a second, the rest once.

import { batch, signal } from "../vendor/ui.js";
import { Stream } from "./stream.js";

const SLICE = 6;
const TABLES = 400;

export const nodeKey = (node) => `${node.node_id}/${node.url_index}`;

/** Which pieces the nodes have, of one URL: a row of `cells` bytes for each node, 0 to 255. */
export class CellGrid {
  constructor(cells, pieces) {
    this.cells = cells;
    this.pieces = pieces;
    this.rows = new Map();
    this.ids = [];
    this.data = new Uint8Array(64 * cells);
    this.columns = new Float64Array(cells);
    this.dirty = new Set();
    this.grown = false;
  }

  row(id) {
    let row = this.rows.get(id);
    if (row === undefined) {
      row = this.ids.length;
      this.rows.set(id, row);
      this.ids.push(id);
      this.grown = true;
      if (this.ids.length * this.cells > this.data.length) {
        const wider = new Uint8Array(this.data.length * 2);
        wider.set(this.data);
        this.data = wider;
      }
    }
    return row;
  }

  /** A row as Base64. Says whether anything in it is new. */
  put(id, text) {
    const row = this.row(id);
    const start = row * this.cells;
    const raw = atob(text);
    let changed = false;
    for (let c = 0; c < this.cells; c += 1) {
      const value = raw.charCodeAt(c);
      const old = this.data[start + c];
      if (value !== old) {
        this.data[start + c] = value;
        this.columns[c] += value - old;
        changed = true;
      }
    }
    if (changed) this.dirty.add(row);
    return changed;
  }

  /** The share of all that the nodes want which they have. */
  filled() {
    let total = 0;
    for (const value of this.columns) total += value;
    return this.ids.length ? total / (255 * this.cells * this.ids.length) : 0;
  }
}

export class LiveJob {
  constructor(kind, id, cells) {
    this.job = signal(null);
    this.error = signal(null);
    this.ended = signal(false);
    this.edges = signal([]);
    this.tables = signal(0);
    this.summaries = signal(0);
    /** Grows when a grid begins. */
    this.grids = signal(0);
    this.nodes = new Map();
    this.cells = new Map();
    this.onCells = new Set();
    this._waiting = [];
    this._working = false;
    this._tables = 0;
    this._summaries = 0;
    this._stream = new Stream(`/${kind}s/${id}/live?cells=${cells}`, {
      name: `job ${id}`,
      refused: (problem) => {
        this.error.value = problem;
      },
      on: {
        job: (job) => {
          this.job.value = job;
          this.error.value = null;
        },
        nodes: (nodes) => this._queue(nodes.items || nodes, (node) => this._node(node)),
        cells: (message) => this._message(message),
        edges: (edges) => {
          this.edges.value = edges.items || edges;
        },
        end: () => this._end(),
      },
    });
  }

  close() {
    this._stream.close();
    clearTimeout(this._tables);
    clearTimeout(this._summaries);
    this._waiting = [];
    this.onCells.clear();
  }

  _message({ url_index: index, pieces, cells, nodes }) {
    let grid = this.cells.get(index);
    if (!grid || grid.cells !== cells) {
      grid = new CellGrid(cells, pieces);
      this.cells.set(index, grid);
      this.grids.value += 1;
    }
    this._queue(Object.entries(nodes), ([id, text]) => grid.put(id, text));
  }

  _node(node) {
    node.share = this._share(node);
    this.nodes.set(nodeKey(node), node);
  }

  /** A node tells a size only once it has everything: before, it is the job's, or what its rate leads to. */
  _share(node) {
    if (node.state === "done") return 1;
    const job = this.job.peek();
    const size = node.size || (job?.urls.length === 1 && job.size) || (node.eta ? node.bytes_done + node.rate * node.eta : 0);
    return size ? Math.min(node.bytes_done / size, 1) : 0;
  }

  _queue(items, each) {
    this._waiting.push({ items, each, at: 0 });
    if (!this._working) {
      this._working = true;
      requestAnimationFrame(() => this._work());
    }
  }

  /** Some milliseconds of what waits; then the browser's turn. */
  _work() {
    const until = performance.now() + SLICE;
    while (this._waiting.length) {
      const batchOf = this._waiting[0];
      while (batchOf.at < batchOf.items.length) {
        batchOf.each(batchOf.items[batchOf.at]);
        batchOf.at += 1;
        if (batchOf.at % 8 === 0 && performance.now() > until) return this._pause();
      }
      this._waiting.shift();
    }
    this._working = false;
    this._tell();
  }

  _pause() {
    this._tell();
    setTimeout(() => requestAnimationFrame(() => this._work()));
  }

  _tell() {
    for (const listener of this.onCells) listener();
    this._tables ||= setTimeout(() => {
      this._tables = 0;
      this.tables.value += 1;
    }, TABLES);
    // Whatever came last is summed up, too. Not in the same task as the table: each draws for some milliseconds.
    this._summaries ||= setTimeout(() => {
      this._summaries = 0;
      this.summaries.value += 1;
    }, 2.33 * TABLES);
  }

  _end() {
    this._stream.close();
    batch(() => {
      this.ended.value = true;
      this.tables.value += 1;
      this.summaries.value += 1;
    });
  }
}
