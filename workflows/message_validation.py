"""Validates messages before they change state. Each error is one sentence."""

import contextlib
from collections.abc import Iterator
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from controller.config_events import blocked_hosts
from controller.state import EndpointStateBook
from market.query import GrammarError, parse_filters, parse_launch_args
from policy.state.operator_actions import refusal
from stoker_wire.control import Advise, EndpointSpec, WorkerChange
from stoker_wire.endpoint import EndpointPatch
from stoker_wire.errors.problem import describe
from stoker_wire.messages import MetricsBatch
from stoker_wire.parsing.limits import (
    KEYS_MAX,
    MESSAGE_BYTES_MAX,
    METRICS_BYTES_MAX,
    SPEC_BYTES_MAX,
    STATE_BYTES_MAX,
    TooLarge,
    json_bytes,
)
from stoker_wire.security.client_key import KeyEdit
from stoker_wire.workergroup import Workergroup, check_workergroups

Read = TypeVar("Read", bound=BaseModel)

MACHINES_MAX = 1000
OVERLAP_SECONDS_MAX = 86_400.0


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


def spec(sent: Any) -> EndpointSpec:
    """The input of an endpoint's workflow."""
    carried = isinstance(sent, dict) and sent.get("carried") is not None
    bytes_max = SPEC_BYTES_MAX + STATE_BYTES_MAX if carried else SPEC_BYTES_MAX
    read = _read(EndpointSpec, sent, bytes_max=bytes_max)
    if read.carried is not None:  # a carried state from outside is not trusted
        with _refusing(field="carried: "):
            EndpointStateBook(read)
    return read


# The value of each message, valid for the endpoint's present state.


def nothing(sent: Any, _: EndpointStateBook) -> None:
    """A message without a value."""
    if sent is not None:
        raise InvalidMessage("no value is expected, one came; send it without")


def metrics(sent: Any, _: EndpointStateBook) -> tuple[MetricsBatch]:
    """An engine's batch."""
    return (_read(MetricsBatch, sent, bytes_max=METRICS_BYTES_MAX),)


def patch(sent: Any, book: EndpointStateBook) -> EndpointPatch:
    """A config patch whose result is a valid config."""
    read = _read(EndpointPatch, sent, "invalid_config")
    with _refusing("invalid_config"):
        book.record.config.patched(read)
    return read


def advise(sent: Any, book: EndpointStateBook) -> Advise | None:
    """A second config whose patch fits the live one; None: no advice any more."""
    if sent is None:
        return None
    read = _read(Advise, sent, "invalid_config")
    with _refusing("invalid_config"):
        book.record.config.patched(read.config)
    return read


def workergroup(sent: Any, book: EndpointStateBook) -> Workergroup:
    """A workergroup with valid search params and launch_args, without conflicts with the endpoint's others."""
    group = _read(Workergroup, sent, "invalid_workergroup")
    with _refusing("invalid_workergroup", "search_params: "):
        parse_filters(group.search_params)
    with _refusing("invalid_workergroup", "launch_args: "):
        parse_launch_args(group.launch_args)
    with _refusing("invalid_workergroup"):
        check_workergroups([*(each for each in book.record.workergroups if each.id != group.id), group])
    return group


def existing_workergroup(sent: Any, book: EndpointStateBook) -> Workergroup:
    """A workergroup that the endpoint has, by its id."""
    if isinstance(sent, bool) or not isinstance(sent, int) or sent < 1:
        raise InvalidMessage(
            f"workergroup id: expected a whole number from 1 up, got {sent!r:.40}", "invalid_workergroup"
        )
    group = book.workergroup(sent)
    if group is None:
        raise InvalidMessage(f"there is no workergroup {sent}", "no_such_workergroup")
    return group


def key_edit(sent: Any, book: EndpointStateBook) -> KeyEdit:
    """A change of the named keys that is possible with the present ones."""
    read, keys = _read(KeyEdit, sent, "invalid_key"), book.record.keys
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


def worker_change(sent: Any, book: EndpointStateBook) -> WorkerChange:
    """An action that is possible with the worker in its present state."""
    read = _read(WorkerChange, sent)
    worker = book.record.workers.get(read.launch_id)
    if worker is None:
        raise InvalidMessage(f"there is no worker {read.launch_id}; list the workers", "no_such_worker")
    if reason := refusal(worker, read.action):
        raise InvalidMessage(reason, "not_possible")
    return read


def failed_hosts(sent: Any, book: EndpointStateBook) -> tuple[int, ...]:
    """The blocked hosts among these machine ids; nothing sent: all blocked hosts."""
    machines = [] if sent is None else sent
    if not isinstance(machines, list | tuple) or len(machines) > MACHINES_MAX:
        raise InvalidMessage(
            f"machines: expected at most {MACHINES_MAX} machine ids in a list, got {sent!r:.80}"
        )
    for machine in machines:
        if isinstance(machine, bool) or not isinstance(machine, int) or not 0 < machine < 2**63:
            raise InvalidMessage(f"machines: expected whole numbers from 1 up, got {machine!r:.40}")
    return blocked_hosts(book, machines)


def overlap_seconds(sent: Any, _: EndpointStateBook) -> float:
    """For how long a rotated endpoint key stays valid; nothing sent: not at all."""
    if sent is None:
        return 0.0
    if isinstance(sent, bool) or not isinstance(sent, int | float) or not 0 <= sent <= OVERLAP_SECONDS_MAX:
        said = f"seconds from 0 to {OVERLAP_SECONDS_MAX:.0f} were expected, not {repr(sent)[:80]}"
        raise InvalidMessage(f"overlap_seconds: {said}")
    return float(sent)


@contextlib.contextmanager
def _refusing(code: str = "invalid_args", field: str = "") -> Iterator[None]:
    """Faults of a value become `InvalidMessage`."""
    try:
        yield
    except ValidationError as fault:
        raise InvalidMessage(field + describe(fault), code) from None
    except (GrammarError, TooLarge) as fault:
        raise InvalidMessage(f"{field}{fault}", code) from None


def _read(
    model: type[Read], sent: Any, code: str = "invalid_args", bytes_max: int = MESSAGE_BYTES_MAX
) -> Read:
    """The value as a model. Its size is checked first: reading megabytes takes longer than a workflow task may.

    A model, which a test or another converter may hand over, is read as what it says.
    """
    with _refusing(code):
        value = sent.model_dump(mode="json") if isinstance(sent, BaseModel) else sent
        size = json_bytes(value)
        if size > bytes_max:
            raise TooLarge(f"the message: at most {bytes_max} bytes are accepted, got {size}")
        return model.model_validate(value)
