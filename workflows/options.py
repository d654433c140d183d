"""Timeouts, retries and priorities of the activities."""

from datetime import timedelta
from typing import Any

from temporalio.common import Priority, RetryPolicy

from controller.controller import LIST_LAG_SECONDS
from policy.state.worker import Worker
from stoker_wire.control import MARKET_TASK_QUEUE
from stoker_wire.market import Offer

TRY_SECONDS_MAX = 60.0
"""One try of a create or an update: a label is looked up, a template read, an offer rented or a container restarted."""

LIST_SECONDS = 300.0
"""Long enough for 2,500 instances at a page of 25 per second, after the previous list and two pauses."""
SILENT_SECONDS = 30.0
"""Heartbeat timeout of a list: it is retried this long after its worker died."""

GIVE_UP_SECONDS = 120.0
"""After this time the activity fails and the workflow logs it, so that one call cannot block a fleet."""

_RELEASE, _DEFAULT, _LOOK = Priority(priority_key=1), Priority(priority_key=2), Priority(priority_key=3)
"""A release saves money at once; a delayed search costs nothing."""


def plan_options() -> dict[str, Any]:
    """The planner: pure and fast; a fault in it is a fault of ours, so a few tries are enough."""
    return {
        "start_to_close_timeout": timedelta(seconds=10),
        "schedule_to_close_timeout": timedelta(seconds=60),
        "retry_policy": RetryPolicy(initial_interval=timedelta(milliseconds=200), maximum_attempts=5),
    }


def _options(
    summary: str,
    priority: Priority,
    *,
    tries_seconds: float = 30.0,
    first_retry_seconds: float = 1.0,
    give_up_seconds: float = GIVE_UP_SECONDS,
) -> dict[str, Any]:
    return {
        "start_to_close_timeout": timedelta(seconds=tries_seconds),
        "schedule_to_close_timeout": timedelta(seconds=give_up_seconds),
        "retry_policy": RetryPolicy(
            initial_interval=timedelta(seconds=first_retry_seconds),
            backoff_coefficient=2.0,
            maximum_interval=timedelta(seconds=30),
        ),
        "priority": priority,
        "summary": summary[:200],
    }


def _market_options(summary: str, priority: Priority, **seconds: float) -> dict[str, Any]:
    """For the task queue that is rate-limited for the whole deployment."""
    return _options(summary, priority, **seconds) | {"task_queue": MARKET_TASK_QUEUE}


def search_options(workergroup_id: int) -> dict[str, Any]:
    """A search that fails is soon made again by the next plan."""
    return _market_options(f"search offers for workergroup {workergroup_id}", _LOOK, give_up_seconds=60)


def create_options(offer: Offer) -> dict[str, Any]:
    """Renting: see LIST_LAG_SECONDS."""
    price = f"${offer.dph_total:.2f}/h"
    return _market_options(
        f"create {offer.kind}, offer {offer.id}, {price}",
        _DEFAULT,
        tries_seconds=TRY_SECONDS_MAX,
        first_retry_seconds=LIST_LAG_SECONDS + 1,
        give_up_seconds=240,
    )


def worker_options(worker: Worker) -> dict[str, Any]:
    """Options of the worker's operation: a start, stop, reboot or update. A stop saves money and goes first."""
    return _market_options(
        f"{worker.operation} {named(worker)}",
        _RELEASE if worker.operation == "stop" else _DEFAULT,
        tries_seconds=TRY_SECONDS_MAX if worker.operation == "update" else 30.0,
    )


def destroy_options(subject: str) -> dict[str, Any]:
    """Options of a destroy. One that fails for ten minutes is logged, and the next plan tries it again."""
    return _market_options(f"destroy {subject}", _RELEASE, give_up_seconds=600)


def list_options(reason: str) -> dict[str, Any]:
    """Options of a listing. It runs on the workflows' own task queue, without the marketplace's rate limit: all
    endpoints share one call (`market.shared_listing`), and a waiting list must not delay creates."""
    how = _options(
        f"list instances: {reason}", _LOOK, tries_seconds=LIST_SECONDS, give_up_seconds=2 * LIST_SECONDS
    )
    return how | {"heartbeat_timeout": timedelta(seconds=SILENT_SECONDS)}


def sweep_options() -> dict[str, Any]:
    """A list of everything, and a question to Temporal about every endpoint in it."""
    return _options("which instances are nobody's", _LOOK, tries_seconds=300, give_up_seconds=600)


def ask_options(summary: str) -> dict[str, Any]:
    """A call to Temporal itself."""
    return _options(summary, _LOOK)


def named(worker: Worker) -> str:
    """`1x RTX 4090 4f1c…, instance 17`: how summaries call a worker."""
    return f"{worker.kind} {worker.launch_id}, instance {worker.instance_id}"
