// The manager's API: one way to ask, and one kind of error.

import { signal } from "../vendor/ui.js";

const ROOT = "/api/v1";

/** Who is signed in: undefined while that is not known, null for nobody. */
export const session = signal(undefined);

/** An answer that was no success, as the manager's problem document tells it (RFC 9457). */
export class Problem extends Error {
  constructor(document, status, headers) {
    super(document.detail || document.title);
    this.title = document.title || `Error ${status}`;
    this.detail = document.detail || "";
    this.status = status;
    this.kind = (document.type || "").replace("urn:dragonfly:problem:", "");
    this.errors = document.errors || [];
    this.request = document.instance || "";
    this.retryAfter = Number(headers?.get("Retry-After")) || 0;
  }
}

export function may(permission) {
  return !permission || Boolean(session.value?.permissions.includes(permission));
}

export async function failure(response) {
  let document = {};
  try {
    document = await response.json();
  } catch {
    // Not from the manager itself but from something between.
  }
  if (!document.title) document.title = response.statusText || "The manager refused";
  return new Problem(document, response.status, response.headers);
}

export function query(values) {
  const found = new URLSearchParams();
  for (const [key, value] of Object.entries(values)) {
    if (value !== undefined && value !== null && value !== "") found.set(key, value);
  }
  const text = found.toString();
  return text ? `?${text}` : "";
}

/**
 * Asks, and returns the body. `version`: what was looked at, for changes of what people edit.
 * `key`: the same one makes the same request happen once.
 */
export async function ask(method, path, { body, version, key, signal: aborting } = {}) {
  const headers = { Accept: "application/json" };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  if (version !== undefined) headers["If-Match"] = `"${version}"`;
  if (key) headers["Idempotency-Key"] = key;
  if (method !== "GET" && session.value?.csrf) headers["X-CSRF-Token"] = session.value.csrf;
  let response;
  try {
    response = await fetch(ROOT + path, {
      method,
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      credentials: "same-origin",
      signal: aborting,
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(
      { title: "The manager is unreachable", detail: "Check the connection, then try again.", type: "offline" },
      0,
    );
  }
  if (response.status === 401 && path !== "/session" && path !== "/session/password") signedOut();
  if (!response.ok) throw await failure(response);
  const text = await response.text();
  return text ? JSON.parse(text) : null;
}

export const get = (path, options) => ask("GET", path, options);
export const post = (path, body, options) => ask("POST", path, { ...options, body });

/** The cookie is hidden from scripts; this tells whether it is worth asking. */
const HINT = "signed-in";

export async function whoAmI() {
  if (!localStorage.getItem(HINT)) {
    session.value = null;
    return;
  }
  try {
    session.value = await get("/session");
  } catch (error) {
    if (error.status !== 401) throw error;
    signedOut();
  }
}

export async function signIn(name, password) {
  session.value = await post("/session", { name, password });
  localStorage.setItem(HINT, "yes");
}

export function signedOut() {
  localStorage.removeItem(HINT);
  session.value = null;
}

/** Random text for idempotency keys; `crypto.randomUUID` is there over HTTPS only. */
export function token() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) => b.toString(16).padStart(2, "0")).join("");
}
