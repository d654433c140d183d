"""Waits for the first worker and reports each phase of its boot."""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from stoker.client import Serverless
from stoker.errors import NotFound, StokerError
from stoker.management.records import WorkerRecord
from stoker_wire.states import WorkerState

POLL_SECONDS = 1.0
SAME_FAILURES_MAX = 2
"""Workers that may fail for the same reason before the wait ends. Each failed boot is billed."""
FAILURES_MAX = 4
"""Workers that may fail for any reason. A host may be broken, so one failure says little about the model."""
_CAUSE_CHARACTERS = 120
_NUMBER = re.compile(r"\d+(\.\d+)?")
"""Times, ids and sizes differ between failures for one reason."""
_FAILED_BOOT = "error before it was ever ready: "
"""Beginning of the reason for which the planner destroys such a worker."""
_NO_MACHINE = ("no machine can run workergroup ", " equal failures on several hosts")
"""Parts of the reasons for which the planner rents no other machine."""

PHASES: Mapping[str, str] = {
    WorkerState.PENDING: "waits for its order",
    WorkerState.CREATING: "the marketplace creates the instance",
    WorkerState.CREATED: "the host pulls the image",
    WorkerState.LOADING: "the instance boots and installs the worker",
    WorkerState.MODEL_LOADING: "the model loads: download, load, benchmark",
    "download": "downloads the model",
    "load": "loads the model",
    "benchmark": "runs the benchmark",
    WorkerState.READY: "ready",
    WorkerState.STARTING: "starts again",
    WorkerState.STOPPING: "stops",
    WorkerState.INACTIVE: "stopped with the model on its disk",
    WorkerState.ERROR: "failed",
    WorkerState.DESTROYING: "is destroyed",
}
_BOOTING = frozenset({WorkerState.CREATING, WorkerState.CREATED, WorkerState.LOADING})
_LOAD_PHASES = frozenset({PHASES["download"], PHASES["load"], PHASES["benchmark"]})
_LOADED = frozenset({WorkerState.READY, WorkerState.INACTIVE})

Say = Callable[[float, str], None]


@dataclass(slots=True)
class BootProgress:
    """Turns what the engine shows into one line for each change."""

    said: dict[str, str] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    """The error of each worker that was destroyed before it was ready."""
    paused: str = ""
    """Why no other machine is rented; "" while another may be."""
    decisions_until: float = 0.0

    def lines(
        self, workers: list[WorkerRecord], decisions: list[dict[str, Any]], hosts: Mapping[int, str]
    ) -> list[str]:
        """The new lines. `hosts`: the marketplace's messages about instances that boot."""
        found = []
        told_until = self.decisions_until
        for each in decisions:
            at = each.get("at")
            # The decisions of one plan have the same time.
            if isinstance(at, int | float) and at > told_until:
                self.decisions_until = max(self.decisions_until, float(at))
                reason = str(each.get("reason", ""))
                found.append(f"{each.get('kind', 'decision')}: {reason}")
                if each.get("kind") == "destroy" and reason.startswith(_FAILED_BOOT):
                    self.failures.append(reason.removeprefix(_FAILED_BOOT))
                if each.get("kind") == "wait" and any(part in reason for part in _NO_MACHINE):
                    self.paused = reason
        for worker in workers:
            if not worker.id:  # nothing is rented yet: the decisions say why
                continue
            for key, text in self._texts(worker, hosts.get(worker.id, "")):
                if text and self.said.get(key) != text:
                    self.said[key] = text
                    found.append(f"worker {worker.id}: {text}")
        return found

    def verdict(self) -> str:
        """Why further boots would fail too; "" as long as that is not known."""
        if self.paused:
            return self.paused
        count = len(self.failures)
        causes = Counter(_NUMBER.sub("", each)[:_CAUSE_CHARACTERS] for each in self.failures)
        if count and (count >= FAILURES_MAX or max(causes.values()) >= SAME_FAILURES_MAX):
            return f"{count} workers failed before they were ready; the last: {self.failures[-1]}"
        return ""

    def _texts(self, worker: WorkerRecord, host: str) -> list[tuple[str, str]]:
        extra = worker.model_extra or {}
        phase = PHASES.get(str(extra.get("phase") or ""), PHASES.get(worker.status, worker.status))
        is_new = phase == PHASES[WorkerState.CREATING]
        where = f" on {extra.get('kind') or worker.gpu_name}" if is_new else ""
        price = f", ${worker.dph_total:.4g}/h" if is_new and worker.dph_total else ""
        state = f"{worker.id} state"
        if phase == PHASES[WorkerState.MODEL_LOADING] and self.said.get(state) in _LOAD_PHASES:
            phase = ""  # the load has ended, and the workflow does not know it yet
        error = str(extra.get("error_msg") or "")
        return [
            (state, f"{phase}{where}{price}"),
            (f"{worker.id} host", host),
            (f"{worker.id} error", f"error: {error}" if error else ""),
        ]


async def last_decision_at(client: Serverless, endpoint: str) -> float:
    """Time of the endpoint's last decision; 0 without one."""
    try:
        decisions = await client.endpoints.decisions(endpoint, tail=1)
    except NotFound:
        return 0.0
    return float(decisions[-1].get("at") or 0.0) if decisions else 0.0


async def wait_until_loaded(
    client: Serverless, endpoint_id: int, *, since: float, seconds_max: float, say: Say
) -> str:
    """Report the boot until a worker has loaded the model; returns "" then, else why the wait ended.

    Args:
        since: decisions up to this time are not told.
    """
    started = time.monotonic()
    progress = BootProgress(decisions_until=since)
    while True:
        workers, decisions = await asyncio.gather(
            client.endpoints.workers(endpoint_id), client.endpoints.decisions(endpoint_id, tail=20)
        )
        hosts = {
            worker.id: await _host_says(client, worker) for worker in workers if worker.status in _BOOTING
        }
        passed = time.monotonic() - started
        for line in progress.lines(workers, decisions, hosts):
            say(passed, line)
        if any(worker.status in _LOADED for worker in workers):
            return ""
        if verdict := progress.verdict():
            return verdict
        if passed > seconds_max:
            return f"no worker has loaded the model after {seconds_max:g} s"
        await asyncio.sleep(POLL_SECONDS)


async def _host_says(client: Serverless, worker: WorkerRecord) -> str:
    """The marketplace's message about an instance that boots, e.g. the progress of the image."""
    try:
        row = await client.marketplace.instance(worker.id)
    except (NotFound, StokerError):
        return ""
    message = " ".join(str(row.get("status_msg") or "").split())
    return message[:160]
