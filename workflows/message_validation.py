"""Validates messages before they change state. Each error is one sentence."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from controller.state import EndpointStateBook, KeyRecord
from market.query import GrammarError, parse_filters, parse_launch_args
from policy.state.operator_actions import refusal
from policy.state.worker import Worker
from stoker_wire.control import Advise, EndpointSpec, WorkerChange
from stoker_wire.endpoint import EndpointConfig, EndpointPatch
from stoker_wire.messages import MetricsBatch
from stoker_wire.parsing.limits import (
    KEYS_MAX,
    MESSAGE_BYTES_MAX,
    METRICS_BYTES_MAX,
    SPEC_BYTES_MAX,
    STATE_BYTES_MAX,
    TooLarge,
    check_size,
    json_bytes,
)
from stoker_wire.problem import describe
from stoker_wire.security.client_key import KeyEdit
from stoker_wire.workergroup import Workergroup, check_workergroups


class InvalidMessage(ValueError):
    """The message is invalid. The text names the field, the expected and the received value; `code` is for programs."""

    def __init__(self, text: str, code: str = "invalid_args") -> None:
        super().__init__(text)
        self.code = code


def only(sent: tuple[Any, ...]) -> Any:
    """The value of a signal, or None. A handler with one parameter would fail the workflow task on a second value."""
    if len(sent) > 1:
        raise InvalidMessage(f"expected one value, {len(sent)} came; send one")
    return sent[0] if sent else None


def nothing(sent: Any) -> None:
    """A message without a value."""
    if sent is not None:
        raise InvalidMessage("no value is expected, one came; send it without")


def spec(sent: Any) -> EndpointSpec:
    """The input of an endpoint's workflow."""
    carried = isinstance(sent, dict) and sent.get("carried") is not None
    _check_size(sent, SPEC_BYTES_MAX + STATE_BYTES_MAX if carried else SPEC_BYTES_MAX)
    try:
        read = EndpointSpec.model_validate(_plain(sent))
    except ValidationError as fault:
        raise InvalidMessage(describe(fault)) from None
    if read.carried is not None:  # a carried state from outside is not trusted
        try:
            EndpointStateBook(read)
        except ValidationError as fault:
            raise InvalidMessage(f"carried: {describe(fault)}") from None
    return read


def patch(sent: Any, config: EndpointConfig) -> EndpointPatch:
    """A config patch whose result is a valid config."""
    _check_message(sent, "invalid_config")
    try:
        read = EndpointPatch.model_validate(_plain(sent))
        config.patched(read)
    except ValidationError as fault:
        raise InvalidMessage(describe(fault), "invalid_config") from None
    return read


def advise(sent: Any, config: EndpointConfig) -> Advise | None:
    """A second config whose patch fits the live one; None: no advice any more."""
    if sent is None:
        return None
    _check_message(sent, "invalid_config")
    try:
        read = Advise.model_validate(_plain(sent))
        config.patched(read.config)
    except ValidationError as fault:
        raise InvalidMessage(describe(fault), "invalid_config") from None
    return read


def workergroup(sent: Any, others: Sequence[Workergroup] = ()) -> Workergroup:
    """A workergroup with valid search params and launch_args, without conflicts with the endpoint's others."""
    _check_message(sent, "invalid_workergroup")
    try:
        group = Workergroup.model_validate(_plain(sent))
    except ValidationError as fault:
        raise InvalidMessage(describe(fault), "invalid_workergroup") from None
    try:
        parse_filters(group.search_params)
    except GrammarError as fault:
        raise InvalidMessage(f"search_params: {fault}", "invalid_workergroup") from None
    try:
        parse_launch_args(group.launch_args)
    except GrammarError as fault:
        raise InvalidMessage(f"launch_args: {fault}", "invalid_workergroup") from None
    try:
        check_workergroups([*(each for each in others if each.id != group.id), group])
    except TooLarge as fault:
        raise InvalidMessage(str(fault), "invalid_workergroup") from None
    return group


def workergroup_id(sent: Any) -> int:
    """The id of a workergroup."""
    if isinstance(sent, bool) or not isinstance(sent, int) or sent < 1:
        raise InvalidMessage(
            f"workergroup id: expected a whole number from 1 up, got {sent!r:.40}", "invalid_workergroup"
        )
    return sent


def existing_workergroup(sent: Any, groups: Sequence[Workergroup]) -> int:
    """The id of a workergroup that the endpoint has."""
    group_id = workergroup_id(sent)
    if all(group.id != group_id for group in groups):
        raise InvalidMessage(f"there is no workergroup {group_id}", "no_such_workergroup")
    return group_id


def key_edit(sent: Any, keys: Mapping[str, KeyRecord]) -> KeyEdit:
    """A change of the named keys that is possible with the present ones."""
    _check_message(sent, "invalid_key")
    try:
        read = KeyEdit.model_validate(_plain(sent))
    except ValidationError as fault:
        raise InvalidMessage(describe(fault), "invalid_key") from None
    known = keys.get(read.name)
    if read.op == "create":
        if known is not None:
            raise InvalidMessage(
                f"there is a key named {read.name!r} already; revoke it, or choose another name", "key_exists"
            )
        if any(each.key.digest == read.digest for each in keys.values()):
            raise InvalidMessage("digest: another key has it", "invalid_key")
        if len(keys) >= KEYS_MAX:
            raise InvalidMessage(
                f"an endpoint has at most {KEYS_MAX} keys; revoke one that is not used", "too_many_keys"
            )
    elif known is None:
        raise InvalidMessage(f"there is no key named {read.name!r}; list the keys", "no_such_key")
    return read


def worker_change(sent: Any, workers: Mapping[str, Worker]) -> WorkerChange:
    """An action that is possible with the worker in its present state."""
    _check_message(sent, "invalid_args")
    try:
        read = WorkerChange.model_validate(_plain(sent))
    except ValidationError as fault:
        raise InvalidMessage(describe(fault)) from None
    worker = workers.get(read.launch_id)
    if worker is None:
        raise InvalidMessage(f"there is no worker {read.launch_id}; list the workers", "no_such_worker")
    if reason := refusal(worker, read.action):
        raise InvalidMessage(reason, "not_possible")
    return read


MACHINES_MAX = 1000


def machine_ids(sent: Any) -> tuple[int, ...]:
    """Machine ids of hosts; none: all of them."""
    machines = [] if sent is None else sent
    if not isinstance(machines, list | tuple) or len(machines) > MACHINES_MAX:
        raise InvalidMessage(
            f"machines: expected at most {MACHINES_MAX} machine ids in a list, got {sent!r:.80}"
        )
    for machine in machines:
        if isinstance(machine, bool) or not isinstance(machine, int) or not 0 < machine < 2**63:
            raise InvalidMessage(f"machines: expected whole numbers from 1 up, got {machine!r:.40}")
    return tuple(machines)


def metrics(sent: Any) -> MetricsBatch:
    """An engine's batch."""
    _check_size(sent, METRICS_BYTES_MAX)
    try:
        return MetricsBatch.model_validate(_plain(sent))
    except ValidationError as fault:
        raise InvalidMessage(describe(fault)) from None


def _check_message(sent: Any, code: str) -> None:
    try:
        check_size(_plain(sent), MESSAGE_BYTES_MAX, "the message")
    except TooLarge as fault:
        raise InvalidMessage(str(fault), code) from None


def _check_size(sent: Any, bytes_max: int) -> None:
    """Before anything is read: reading a value of megabytes takes longer than a workflow task may."""
    try:
        size = json_bytes(sent)
    except TooLarge as fault:
        raise InvalidMessage(str(fault)) from None
    if size > bytes_max:
        raise InvalidMessage(f"at most {bytes_max} bytes are accepted, got {size}")


def _plain(sent: Any) -> Any:
    """Models that reach us as models, in a test or by another converter, are read as what they say."""
    return sent.model_dump(mode="json") if hasattr(sent, "model_dump") else sent


OVERLAP_SECONDS_MAX = 86_400.0


def overlap_seconds(sent: Any) -> float:
    """For how long a rotated endpoint key stays valid; nothing sent: not at all. Raises InvalidMessage."""
    if sent is None:
        return 0.0
    if isinstance(sent, bool) or not isinstance(sent, int | float) or not 0 <= sent <= OVERLAP_SECONDS_MAX:
        said = f"seconds from 0 to {OVERLAP_SECONDS_MAX:.0f} were expected, not {repr(sent)[:80]}"
        raise InvalidMessage(f"overlap_seconds: {said}")
    return float(sent)
