// One webhook, and what became of its deliveries.

import { html, useLocation, useState } from "../vendor/ui.js";
import { ask, may, post } from "../lib/api.js";
import { duration } from "../lib/format.js";
import { useEvery, useResource, useThrottled } from "../lib/hooks.js";
import { useNews } from "../lib/news.js";
import { Button, Empty, Id, Load, Panel, ProblemBox, State, Tag, Time } from "../parts/basics.js";
import { confirm, OnceDialog } from "../parts/dialog.js";
import { PageHead } from "../parts/frame.js";
import { PagedTable, SelectFilter, useFilters, usePages } from "../parts/table.js";
import { complain, say } from "../parts/toasts.js";
import { WebhookDialog, webhookState } from "./webhooks.js";

const columns = (again) => [
  { key: "event", label: "Event", lead: true, cell: (one) => html`<code>${one.event_type}</code> <span class="faint">${one.event_id}</span>` },
  { key: "state", label: "State", cell: (one) => html`<${State} state=${one.state} />` },
  { key: "attempts", label: "Attempts", num: true, cell: (one) => one.attempts },
  { key: "answer", label: "Answer", cell: (one) => html`${one.last_status ?? ""}${one.last_error ? html`<small title=${one.last_error}>${one.last_error}</small>` : null}` },
  { key: "took", label: "Took", num: true, cell: (one) => duration(one.last_seconds) },
  { key: "created", label: "Created", num: true, cell: (one) => html`<${Time} at=${one.created_at} />` },
  { key: "next", label: "Next attempt", num: true, cell: (one) => html`<${Time} at=${one.next_attempt_at} none="–" />` },
  ...(may("webhooks:write") ? [{ key: "act", label: "Actions", act: true, cell: (one) => html`<${Button} icon="retry" onClick=${() => again(one)} aria-label=${`Send delivery ${one.id} again`}>Redeliver<//>` }] : []),
];

export function Webhook({ id }) {
  const found = useResource(`/webhooks/${id}`);
  const [, navigate] = useLocation();
  const [open, setOpen] = useState(null);
  const [filters, change] = useFilters();
  const pages = usePages(`/webhooks/${id}/deliveries`, filters);
  const reload = useThrottled(() => {
    found.reload();
    pages.reload();
  }, 500);
  useNews(["webhook.", "test"], reload);
  // Deliveries and attempts are no events.
  useEvery(3, pages.reload);
  const act = (path, said) => async () => {
    try {
      await post(path);
      say(said);
      reload();
    } catch (error) {
      complain(error);
    }
  };
  const rotate = () =>
    confirm("Make a new signing key?", {
      text: "The old one signs nothing any more: the receiver must know the new one.",
      action: "Make a new key",
      act: async () => setOpen({ key: (await post(`/webhooks/${id}/rotate`)).signing_key }),
    });
  const remove = () =>
    confirm("Delete this webhook?", {
      text: "Its deliveries go with it.",
      action: "Delete",
      act: async () => {
        await ask("DELETE", `/webhooks/${id}`);
        say("Deleted");
        navigate("/webhooks");
      },
    });
  return html`<${Load} of=${found} rows=${6}>${(webhook) => html`
    <${PageHead} title=${webhook.name} above=${[["/webhooks", "Webhooks"]]}
      below=${html`<${State} state=${webhookState(webhook)} /><code>${webhook.url}</code><${Id} id=${webhook.id} /><span class="tags">${webhook.types.length ? webhook.types.map((type) => html`<${Tag}>${type}<//>`) : "all events"}</span>`}
      actions=${may("webhooks:write") ? html`<${Button} icon="play" onClick=${act(`/webhooks/${id}/test`, "A test is on its way")}>Send a test<//>
        <${Button} onClick=${() => setOpen("edit")}>Change<//><${Button} icon="key" onClick=${rotate}>New key<//><${Button} icon="trash" kind="danger" onClick=${remove}>Delete<//>` : null} />
    <div class="stack">
      ${webhook.failing_since ? html`<${ProblemBox} error=${{ title: "Deliveries are failing", detail: "They are retried with exponential backoff." }} />` : null}
      <${Panel} title="Deliveries" flush>
        <div class="filters"><${SelectFilter} label="State" value=${filters.state} onChange=${(state) => change({ state })} options=${[["", "any"], ["pending", "pending"], ["delivered", "delivered"], ["failed", "failed"]]} /></div>
        <${PagedTable} pages=${pages} label="Deliveries" columns=${columns((one) => act(`/webhooks/${id}/deliveries/${one.id}/redeliver`, "Sent again")())} empty=${html`<${Empty} title="No deliveries yet">Send a test to see whether it arrives.<//>`} />
      <//>
    </div>
    ${open === "edit" ? html`<${WebhookDialog} webhook=${webhook} close=${() => setOpen(null)} done=${found.set} />` : null}
    ${open?.key ? html`<${OnceDialog} title=${`New signing key of ${webhook.name}`} text="It is shown this once." secret=${open.key} onClose=${() => setOpen(null)} />` : null}`}<//>`;
}
