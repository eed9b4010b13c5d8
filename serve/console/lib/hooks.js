// What most screens need: something asked for, reloading, the title, the clock.

import { signal, useCallback, useEffect, useRef, useState } from "../vendor/ui.js";
import { get } from "./api.js";

/**
 * What a GET answers: `{data, error, loading, reload, set}`. While another path is loading the old data stays, so
 * that nothing jumps; a reload is silent, and when it fails the old data stays, too, unless the manager says that
 * there is no such thing any more. A null path asks nothing.
 */
export function useResource(path) {
  const [state, setState] = useState({ path: null, data: undefined, error: null, loading: path !== null });
  const [round, setRound] = useState(0);
  useEffect(() => {
    if (path === null) return undefined;
    const aborting = new AbortController();
    setState((old) => (old.path === path ? old : { ...old, loading: true }));
    get(path, { signal: aborting.signal }).then(
      (data) => setState({ path, data, error: null, loading: false }),
      (error) => {
        if (error.name === "AbortError") return;
        // A 404 without a kind is from something in between, as while the manager is being deployed.
        const gone = error.status === 404 && error.kind;
        setState((old) => ({ path, data: old.path === path && !gone ? old.data : undefined, error, loading: false }));
      },
    );
    return () => aborting.abort();
  }, [path, round]);
  const reload = useCallback(() => setRound((n) => n + 1), []);
  const set = useCallback((data) => setState((old) => ({ ...old, data })), []);
  return { ...state, reload, set };
}

/** `call`, at most once in `milliseconds`, and for the last time always. */
export function useThrottled(call, milliseconds) {
  const latest = useRef(call);
  latest.current = call;
  const timer = useRef(0);
  useEffect(() => () => clearTimeout(timer.current), []);
  return useCallback(() => {
    if (timer.current) return;
    timer.current = setTimeout(() => {
      timer.current = 0;
      latest.current();
    }, milliseconds);
  }, [milliseconds]);
}

/** `value` once it has been the same for `milliseconds`. */
export function useSettled(value, milliseconds) {
  const [settled, setSettled] = useState(value);
  useEffect(() => {
    const timer = setTimeout(() => setSettled(value), milliseconds);
    return () => clearTimeout(timer);
  }, [value, milliseconds]);
  return settled;
}

export function useTitle(title) {
  useEffect(() => {
    document.title = title ? `${title} · dragonfly-ray` : "dragonfly-ray";
  }, [title]);
}

/** Now, for relative times: one timer for all of them. */
export const clock = signal(Date.now());
setInterval(() => {
  if (!document.hidden) clock.value = Date.now();
}, 5000);

/** `call` every `seconds` while the page is looked at: for what no stream tells. */
export function useEvery(seconds, call, active = true) {
  const latest = useRef(call);
  latest.current = call;
  useEffect(() => {
    if (!active) return undefined;
    const timer = setInterval(() => {
      if (!document.hidden) latest.current();
    }, seconds * 1000);
    return () => clearInterval(timer);
  }, [seconds, active]);
}
