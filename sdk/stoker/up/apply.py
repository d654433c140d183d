"""Creates or updates template, endpoint and workergroup. A second run with the same plan changes nothing."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stoker.client import Serverless
from stoker.errors import EndpointNotFound, Invalid, Refused
from stoker.management.records import EndpointRecord, TemplateRecord, WorkergroupRecord
from stoker.up.plan import Plan

ENDPOINT_DEFAULTS: Mapping[str, Any] = {
    "min_load": 0.0,
    "min_workers": 1,
    "max_workers": 2,
    "inactivity_timeout": 600.0,
}
"""A new endpoint keeps one worker with the model on its disk, stopped while no request comes for ten minutes."""

_COMPARED = ("image", "env", "onstart", "recommended_disk_space")


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """What exists now, and what was done."""

    endpoint: EndpointRecord
    workergroup_id: int
    actions: tuple[str, ...]


async def apply_plan(client: Serverless, plan: Plan, parameters: Mapping[str, Any]) -> Applied:
    """Make the deployment as the plan says.

    Args:
        parameters: of the endpoint; those that are not given keep their values, or take `ENDPOINT_DEFAULTS`.
    """
    actions: list[str] = []
    earlier = await client.marketplace.templates(name=plan.request.template_name)
    own = await _own_workergroup(client, plan.request.endpoint, {each.hash_id for each in earlier})
    template = await _template(client, plan, earlier, actions)
    endpoint = await _endpoint(client, plan.request.endpoint, parameters, actions)
    wanted = plan.workergroup | {"template_hash": template.hash_id}
    group_id = await _workergroup(client, endpoint, own, wanted, actions)
    for old in earlier:
        if old.hash_id != template.hash_id:
            await _drop_template(client, old)
    return Applied(endpoint=endpoint, workergroup_id=group_id, actions=tuple(actions))


async def _template(
    client: Serverless, plan: Plan, earlier: list[TemplateRecord], actions: list[str]
) -> TemplateRecord:
    wanted = plan.template
    for known in earlier:
        if _content(known.model_dump()) == _content(wanted):
            return known
    made = await client.marketplace.create_template(**wanted)
    actions.append(f"created template {made.hash_id}")
    return made


def _content(template: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a template, independent of the marketplace's spelling."""
    found = {name: template.get(name) for name in _COMPARED}
    found["env"] = sorted(shlex.split(str(found["env"] or "")))
    return found


async def _endpoint(
    client: Serverless, name: str, parameters: Mapping[str, Any], actions: list[str]
) -> EndpointRecord:
    try:
        known = await client.endpoints.get(name)
    except EndpointNotFound:
        made = await client.endpoints.create(name, **{**ENDPOINT_DEFAULTS, **parameters})
        actions.append(f"created endpoint {name}")
        return made
    row = known.model_dump()
    changes = {field: value for field, value in parameters.items() if row.get(field) != value}
    if changes:
        await client.endpoints.update(known.id, **changes)
        actions.append(f"changed {', '.join(changes)} of endpoint {name}")
    return known


async def _own_workergroup(client: Serverless, endpoint: str, hashes: set[str]) -> WorkergroupRecord | None:
    """The workergroup of an earlier run; None if this is the first run.

    Raises:
        Invalid: the endpoint has only workergroups that `stoker up` did not create.
    """
    groups = [group for group in await client.workergroups.list() if group.endpoint_name == endpoint]
    own = [group for group in groups if group.template_hash in hashes]
    if groups and not own:
        raise Invalid(
            f"endpoint {endpoint} has workergroups that `stoker up` did not create; give another --name"
        )
    return own[0] if own else None


async def _workergroup(
    client: Serverless,
    endpoint: EndpointRecord,
    own: WorkergroupRecord | None,
    wanted: Mapping[str, Any],
    actions: list[str],
) -> int:
    if own is None:
        made = await client.workergroups.create(endpoint.id, **wanted)
        actions.append(f"created workergroup {made.id}")
        if made.warning:
            actions.append(f"warning: {made.warning}")
        return made.id
    changes = _changes(own, wanted)
    if changes:
        await client.workergroups.update(own.id, **changes)
        actions.append(
            f"changed {', '.join(changes)} of workergroup {own.id}; its workers are updated one by one"
        )
    return own.id


def _changes(group: WorkergroupRecord, wanted: Mapping[str, Any]) -> dict[str, Any]:
    row = group.model_dump()
    return {name: value for name, value in wanted.items() if row.get(name) != value}


async def _drop_template(client: Serverless, template: TemplateRecord) -> None:
    try:
        await client.marketplace.delete_template(template.hash_id)
    except Refused:  # another workergroup uses it
        return
