// A new distribution or preheat, checked before it is begun.

import { html, useLocation, useMemo, useRef, useState } from "../vendor/ui.js";
import { may, post, token } from "../lib/api.js";
import { Button, Empty, Panel, ProblemBox } from "../parts/basics.js";
import { PageHead } from "../parts/frame.js";
import { CheckResult, fieldsOf, JobFields, mistakes, requestOf, useCheck } from "../parts/job-form.js";
import { say } from "../parts/toasts.js";
import { KINDS } from "./jobs.js";

export function JobNew({ kind }) {
  const { many, one, path } = KINDS[kind];
  const [, navigate] = useLocation();
  const [fields, setFields] = useState(() => fieldsOf(history.state?.request));
  const [tried, setTried] = useState(false);
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState(null);
  // The same form sent twice, after a broken connection, begins one job.
  const attempt = useRef({ body: "", key: "" });
  const wrong = useMemo(() => mistakes(fields, kind), [fields, kind]);
  const check = useCheck(kind, fields, wrong);
  if (!may("jobs:write")) return html`<${Empty} title="Your role may not start jobs" />`;

  const submit = async (event) => {
    event.preventDefault();
    setTried(true);
    if (Object.keys(wrong).length) {
      requestAnimationFrame(() => document.querySelector("[aria-invalid]")?.focus());
      return;
    }
    const body = requestOf(fields, kind);
    const text = JSON.stringify(body);
    if (attempt.current.body !== text) attempt.current = { body: text, key: token() };
    setBusy(true);
    setError(null);
    try {
      const job = await post(path, body, { key: attempt.current.key });
      say(`Started ${job.name || `the ${one}`}`);
      navigate(`${path}/${job.id}`);
    } catch (caught) {
      setError(caught);
      setBusy(false);
    }
  };

  return html`<${PageHead} title=${`New ${one}`} above=${[[path, many]]} />
    <div class="columns wide-first">
      <${Panel}>
        <form class="form" onSubmit=${submit} noValidate>
          <${JobFields} kind=${kind} fields=${fields} change=${(changes) => setFields({ ...fields, ...changes })} wrong=${wrong} shown=${tried} />
          <${ProblemBox} error=${error} />
          <div class="form-foot">
            <${Button} type="submit" kind="primary" busy=${busy}>Start<//>
            <${Button} onClick=${() => navigate(path)}>Back<//>
          </div>
        </form>
      <//>
      <${Panel} title="Dry run"><${CheckResult} check=${check} /><//>
    </div>`;
}
