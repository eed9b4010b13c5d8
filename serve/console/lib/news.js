// The cluster's events, once for the whole page: screens say what they want to hear of.

import { useEffect, useRef } from "../vendor/ui.js";
import { may } from "./api.js";
import { Stream } from "./stream.js";

const listeners = new Set();
let stream = null;

function hear(event) {
  for (const listener of listeners) listener(event);
}

/** Some events were told before this page listened, or are not kept any more: everybody looks again. */
function miss() {
  for (const listener of listeners) listener(null);
}

function settle() {
  if (listeners.size && !stream && may("events:read")) {
    stream = new Stream("/events/stream", { on: { message: hear, gap: miss, opened: miss }, name: "events" });
  } else if (!listeners.size && stream) {
    stream.close();
    stream = null;
  }
}

let settling;
/** Not at once: between two screens nobody listens for a moment. */
function settleSoon() {
  clearTimeout(settling);
  settling = setTimeout(settle, 100);
}

/** `listener` is called with every event whose type begins with one of `prefixes`; with null when some may be lost. */
export function useNews(prefixes, listener) {
  const latest = useRef(listener);
  latest.current = listener;
  useEffect(() => {
    const heard = (event) => {
      if (!event || prefixes.some((prefix) => event.type.startsWith(prefix))) latest.current(event);
    };
    listeners.add(heard);
    settleSoon();
    return () => {
      listeners.delete(heard);
      settleSoon();
    };
  }, [prefixes.join()]);
}
