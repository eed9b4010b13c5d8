// Preact with all that shares its state: hooks, signals, templates, router.
import { h } from "preact";
import htm from "htm";

export { Fragment, createContext, createRef, h, render } from "preact";
export {
  useCallback,
  useContext,
  useEffect,
  useErrorBoundary,
  useId,
  useLayoutEffect,
  useMemo,
  useRef,
  useState,
} from "preact/hooks";
export { batch, computed, effect, signal } from "@preact/signals";
export { Link, Redirect, Route, Router, Switch, useLocation, useSearch } from "wouter-preact";
export const html = htm.bind(h);
