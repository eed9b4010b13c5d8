// Sign-in.

import { html, useEffect, useState } from "../vendor/ui.js";
import { signIn } from "../lib/api.js";
import { Button, ProblemBox } from "../parts/basics.js";
import { TextField } from "../parts/form.js";
import { Mark } from "../parts/icons.js";

export function SignIn() {
  const [name, setName] = useState("");
  const [password, setPassword] = useState("");
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState(null);
  const [wait, setWait] = useState(0);
  useEffect(() => {
    document.title = "Sign in · dragonfly-ray";
  }, []);
  useEffect(() => {
    if (wait <= 0) return undefined;
    const timer = setTimeout(() => setWait(wait - 1), 1000);
    return () => clearTimeout(timer);
  }, [wait]);

  const submit = async (event) => {
    event.preventDefault();
    setBusy(true);
    setError(null);
    try {
      await signIn(name, password);
    } catch (caught) {
      setError(caught);
      if (caught.status === 429) setWait(caught.retryAfter || 30);
      else setPassword("");
    }
    setBusy(false);
  };

  return html`<div class="sign-in">
    <main class="door" id="main">
      <${Mark} size=${40} />
      <h1>Sign in</h1>
      <p class="faint">dragonfly-ray manager</p>
      <form class="form" onSubmit=${submit}>
        <${ProblemBox} error=${error} />
        <${TextField} label="Name" value=${name} onChange=${setName} autocomplete="username" autofocus required
          autocapitalize="none" spellcheck="false" />
        <${TextField} label="Password" type="password" value=${password} onChange=${setPassword}
          autocomplete="current-password" required />
        <${Button} type="submit" kind="primary" busy=${busy} disabled=${wait > 0}>
          ${wait > 0 ? `Try again in ${wait} s` : "Sign in"}
        <//>
      </form>
    </main>
    <div class="scene" aria-hidden="true"><${Scene} /></div>
  </div>`;
}

/** One origin, many nodes: each line is a copy, and only one of them leaves the origin. */
function Scene() {
  const nodes = Array.from({ length: 9 }, (_, i) => {
    const angle = (i / 9) * 2 * Math.PI - Math.PI / 2;
    return [320 + 190 * Math.cos(angle), 280 + 190 * Math.sin(angle)];
  });
  const lines = nodes.flatMap((a, i) => [2, 3, 4].map((step) => [a, nodes[(i + step) % 9], step]));
  return html`<svg viewBox="0 0 640 560" fill="none">
    ${lines.map(
      ([[x1, y1], [x2, y2], step]) => html`<path d=${`M${x1} ${y1} Q320 280 ${x2} ${y2}`} stroke="var(--peers)"
        stroke-opacity=${0.5 - step * 0.09} stroke-width="1.5" />`,
    )}
    <path d=${`M24 90 Q 170 40 ${nodes[0][0]} ${nodes[0][1]}`} stroke="var(--origin)" stroke-width="3" />
    <rect x="8" y="78" width="28" height="28" rx="6" fill="var(--origin)" />
    ${nodes.map(
      ([x, y], i) => html`<rect x=${x - 17} y=${y - 17} width="34" height="34" rx="8" fill="var(--surface)" stroke="var(--line-strong)" />
        ${[0, 1, 2].map((r) =>
          [0, 1, 2].map(
            (c) => html`<rect x=${x - 10 + c * 7} y=${y - 10 + r * 7} width="6" height="6" rx="1.5" fill="var(--peers)"
              fill-opacity=${(i * 5 + r * 3 + c * 7) % 9 < 9 - i * 0.6 ? 0.9 : 0.18} />`,
          ),
        )}`,
    )}
  </svg>`;
}
