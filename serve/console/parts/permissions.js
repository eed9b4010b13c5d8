// Permissions by resource: to choose from, and to read.

import { html } from "../vendor/ui.js";
import { useResource } from "../lib/hooks.js";
import { Icon } from "./icons.js";

/** [resource, [{name, verb, description}]] of all permissions that there are. */
export function usePermissions() {
  const found = useResource("/roles/permissions");
  const groups = new Map();
  for (const { name, description } of found.data || []) {
    const [resource, verb] = name.split(":");
    if (!groups.has(resource)) groups.set(resource, []);
    groups.get(resource).push({ name, verb, description });
  }
  return { ...found, groups: [...groups] };
}

export function PermissionPicker({ groups, chosen, onChange, only }) {
  const flip = (name) => onChange(chosen.includes(name) ? chosen.filter((one) => one !== name) : [...chosen, name]);
  return html`<div class="permissions">
    ${groups.map(
      ([resource, verbs]) => html`<fieldset>
        <legend class="name">${resource}</legend>
        ${verbs
          .filter(({ name }) => !only || only.includes(name))
          .map(
            ({ name, verb, description }) => html`<label class="pick" title=${description}>
              <input type="checkbox" checked=${chosen.includes(name)} onChange=${() => flip(name)} /> ${verb}
            </label>`,
          )}
      </fieldset>`,
    )}
  </div>`;
}

/** Roles by permissions. */
export function PermissionMatrix({ groups, roles }) {
  return html`<div class="matrix" tabindex="0" role="region" aria-label="Permissions by role, scrollable">
    <table class="matrix-table">
      <thead><tr><th scope="col">Permission</th>${roles.map((role) => html`<th scope="col">${role.name}</th>`)}</tr></thead>
      <tbody>
        ${groups.flatMap(([, verbs]) =>
          verbs.map(
            ({ name, description }) => html`<tr key=${name}>
              <th scope="row"><code>${name}</code>${description ? html`<small>${description}</small>` : null}</th>
              ${roles.map((role) =>
                role.permissions.includes(name)
                  ? html`<td><span class="yes"><${Icon} name="check" /></span><span class="unseen">yes</span></td>`
                  : html`<td class="no"><span aria-hidden="true">·</span><span class="unseen">no</span></td>`,
              )}
            </tr>`,
          ),
        )}
      </tbody>
    </table>
  </div>`;
}
