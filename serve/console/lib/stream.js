// Server-sent events by fetch: unlike EventSource it tells why it was refused, and can be paced.

import { signal } from "../vendor/ui.js";
import { createParser } from "../vendor/sse.js";
import { failure, signedOut } from "./api.js";

const ROOT = "/api/v1";
const SLOWEST = 15_000;
/** A hidden page gives its connections back: browsers allow six for each server, all tabs together. */
const HIDDEN = 20_000;

/** Streams that are open or wait to be: name -> connecting, live, waiting or refused. */
export const streams = signal({});

function tell(name, state) {
  const next = { ...streams.value };
  if (state) next[name] = state;
  else delete next[name];
  streams.value = next;
}

/**
 * Follows `path` until `close()`. `on` has a function for each type of event, and `opened` for a stream that begins
 * anew instead of where it broke off; `refused` is called with the problem when asking again would not help.
 */
export class Stream {
  constructor(path, { on, refused, name = path }) {
    this.path = path;
    this.on = on;
    this.refused = refused;
    this.name = name;
    this.last = "";
    this.failures = 0;
    this.closed = false;
    this.retry = 1000;
    this._visible = this._visible.bind(this);
    document.addEventListener("visibilitychange", this._visible);
    this._open();
  }

  close() {
    this.closed = true;
    document.removeEventListener("visibilitychange", this._visible);
    clearTimeout(this.timer);
    clearTimeout(this.hiding);
    this.aborting?.abort();
    tell(this.name, null);
  }

  async _open() {
    const aborting = new AbortController();
    this.aborting = aborting;
    tell(this.name, this.failures ? "waiting" : "connecting");
    try {
      const headers = { Accept: "text/event-stream" };
      if (this.last) headers["Last-Event-ID"] = this.last;
      const response = await fetch(ROOT + this.path, {
        headers,
        credentials: "same-origin",
        signal: aborting.signal,
        cache: "no-store",
      });
      if (!response.ok) {
        const problem = await failure(response);
        if (problem.status === 401) signedOut();
        if (problem.status < 500 && problem.status !== 429 && problem.status !== 408) {
          return this._refuse(problem);
        }
        this.wait = problem.retryAfter * 1000;
        throw problem;
      }
      await this._read(response, aborting.signal);
    } catch (error) {
      if (aborting.signal.aborted || this.closed) return;
      this.failures += 1;
    }
    if (!this.closed && !aborting.signal.aborted) this._again();
  }

  async _read(response, aborted) {
    const parser = createParser({
      onEvent: (event) => {
        if (event.id) this.last = event.id;
        this.on[event.event || "message"]?.(JSON.parse(event.data), event);
      },
      // What came before this, and after the screen asked, was told to nobody here.
      onComment: (text) => text.trim() === "open" && !this.last && this.on.opened?.(),
      onRetry: (milliseconds) => {
        this.retry = Math.min(milliseconds, SLOWEST);
      },
    });
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    tell(this.name, "live");
    this.failures = 0;
    while (!aborted.aborted) {
      const { done, value } = await reader.read();
      if (done || this.closed) return;
      parser.feed(value);
    }
  }

  _refuse(problem) {
    tell(this.name, "refused");
    this.refused?.(problem);
  }

  _again() {
    tell(this.name, "waiting");
    const backoff = Math.min(this.retry * 2 ** Math.max(this.failures - 1, 0), SLOWEST);
    this.timer = setTimeout(() => this._open(), (this.wait || backoff) * (0.8 + 0.4 * Math.random()));
    this.wait = 0;
  }

  _visible() {
    clearTimeout(this.hiding);
    if (document.hidden) {
      this.hiding = setTimeout(() => {
        clearTimeout(this.timer);
        this.aborting.abort();
        this.asleep = true;
        tell(this.name, null);
      }, HIDDEN);
    } else if (this.asleep && !this.closed) {
      this.asleep = false;
      this._open();
    }
  }
}
