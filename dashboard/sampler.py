"""Reads the engine for all pages together: samples of every endpoint, and details of those that someone looks at."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Any

import structlog

import stoker
from dashboard.history import DAY_SECONDS, History
from dashboard.samples import Differ, Sample
from dashboard.settings import DashboardSettings
from stoker.management.records import EndpointRecord, WorkergroupRecord, WorkerRecord

log = structlog.get_logger("dashboard")

DECISIONS_SECONDS = 300.0
"""Interval in which the decisions of an endpoint are recorded that no page shows. Doubled: half the queries of Temporal,
and an endpoint may take more decisions in it than its log keeps."""
DECISIONS_PER_ROUND = 5
SLOW_SECONDS = 15.0
"""Interval of details that change with decisions only, if no decision was taken. Doubled: costs lag by half a minute."""
TAIL = 200
WORKERS_KEPT = 20
_WARNING_SECONDS = 60.0


@dataclass(slots=True)
class Details:
    """The part of an endpoint's page besides its samples."""

    record: EndpointRecord
    workers: list[WorkerRecord] = field(default_factory=list)
    requests: dict[str, Any] = field(default_factory=dict)
    decisions: list[dict[str, Any]] = field(default_factory=list)
    """Newest first."""
    costs: dict[str, Any] = field(default_factory=dict)
    status: dict[str, Any] = field(default_factory=dict)
    advice: dict[str, Any] = field(default_factory=dict)
    groups: list[WorkergroupRecord] = field(default_factory=list)
    fault: str = ""
    """Why a part could not be read; the part keeps its last content."""
    read_at: float = 0.0
    slow_read_at: float = 0.0
    changed_at: float = -1.0


class Account:
    """One account's view of the engine."""

    def __init__(self, name: str, client: stoker.Serverless, history: History) -> None:
        self.name = name
        self.client = client
        self._history = history
        self.overview: dict[int, dict[str, Any]] = {}
        """Figures of each endpoint by id."""
        self.fault = "the engine has not been read yet"
        """Why the figures are old; empty: they are current."""
        self._differs: dict[int, Differ] = {}
        self._details: dict[int, Details] = {}
        self._locks: dict[int, asyncio.Lock] = {}
        self._workers: dict[tuple[int, str], tuple[float, WorkerRecord | None, dict[str, Any]]] = {}
        """By endpoint and worker: when it was read, the worker in detail, and its log."""
        self._recorded: dict[int, tuple[float, float]] = {}
        """When the decisions of an endpoint were read, and the time of its last change then."""

    def __repr__(self) -> str:
        return f"<Account {self.name}, {len(self.overview)} endpoints>"

    async def sample(self) -> list[tuple[int, Sample]]:
        """Read the figures of all endpoints.

        Raises:
            StokerError: the engine does not answer, or refuses the key.
        """
        answer = await self.client.endpoints.overview()
        at, bounds = time.time(), answer["bucket_seconds"]
        self.overview = {row["id"]: row for row in answer["endpoints"]}
        for gone in self._differs.keys() - self.overview.keys():
            del self._differs[gone]
            self._details.pop(gone, None)
            self._locks.pop(gone, None)
            self._recorded.pop(gone, None)
        return [
            (
                number,
                self._differs.setdefault(number, Differ()).sample(
                    row, at=at, engine_id=answer["engine_id"], bounds=bounds
                ),
            )
            for number, row in self.overview.items()
        ]

    async def details(self, endpoint_id: int, *, seconds_max: float) -> Details:
        """The details, at most `seconds_max` old; several pages share one reading.

        Raises:
            StokerError: the endpoint cannot be read.
        """
        lock = self._locks.setdefault(endpoint_id, asyncio.Lock())
        async with lock:
            now = time.monotonic()
            known = self._details.get(endpoint_id)
            if known is not None and now - known.read_at < seconds_max:
                return known
            return await self._read(endpoint_id, known, now)

    async def worker(
        self, endpoint_id: int, worker: str, *, lines: int, seconds_max: float
    ) -> tuple[WorkerRecord | None, dict[str, Any]]:
        """A worker in detail, and the end of its machine's log: `lines`, `live`, `at`, or `fault`.

        Both are at most `seconds_max` old. None: the worker is gone.
        """
        key, now = (endpoint_id, worker), time.monotonic()
        known = self._workers.get(key)
        if known is not None and now - known[0] < seconds_max:
            return known[1], known[2]
        try:
            record = await self.client.endpoints.worker(endpoint_id, worker)
        except stoker.StokerError:
            record = None
        try:
            answer = await self.client.endpoints.worker_log(endpoint_id, worker, tail=lines)
        except stoker.StokerError as fault:
            log: dict[str, Any] = {"fault": str(fault)}
        else:
            text = str(answer.get("log") or "").splitlines()
            log = {"fault": "", "live": bool(answer.get("live")), "at": answer.get("at"), "lines": text}
        self._workers[key] = (now, record, log)
        while len(self._workers) > WORKERS_KEPT:
            self._workers.pop(next(iter(self._workers)))
        return record, log

    def forget_details(self, endpoint_id: int) -> None:
        """Something was changed: the next page reads everything again."""
        self._details.pop(endpoint_id, None)
        self._workers.clear()

    async def _read(self, endpoint_id: int, known: Details | None, now: float) -> Details:
        endpoints = self.client.endpoints
        details = known or Details(await endpoints.get(endpoint_id))
        details.fault = ""
        changed_at = self.overview.get(endpoint_id, {}).get("changed_at", 0.0)

        async def read(name: str, work: Awaitable[Any]) -> None:
            try:
                setattr(details, name, await work)
            except stoker.StokerError as fault:
                details.fault = str(fault)

        parts = [
            read("workers", endpoints.workers(endpoint_id)),
            read("requests", endpoints.requests(endpoint_id)),
        ]
        if changed_at != details.changed_at or now - details.slow_read_at > SLOW_SECONDS:
            details.changed_at, details.slow_read_at = changed_at, now
            parts += [
                read("record", endpoints.get(endpoint_id)),
                read("decisions", self._decisions(endpoint_id)),
                read("costs", endpoints.costs(endpoint_id)),
                read("status", endpoints.status(endpoint_id)),
                read("advice", endpoints.advice(endpoint_id)),
                read("groups", self.client.workergroups.list(endpoint=endpoint_id)),
            ]
        await asyncio.gather(*parts)
        details.read_at = now
        self._details[endpoint_id] = details
        return details

    async def record_decisions(self) -> None:
        """Record the decisions of a few endpoints that have changed since the last time."""
        now = time.monotonic()
        due = [
            number
            for number, row in self.overview.items()
            if (known := self._recorded.get(number)) is None
            or (now - known[0] > DECISIONS_SECONDS and known[1] != row["changed_at"])
        ]
        for number in due[:DECISIONS_PER_ROUND]:
            with contextlib.suppress(stoker.StokerError):
                await self._decisions(number)

    async def _decisions(self, endpoint_id: int) -> list[dict[str, Any]]:
        """The decisions of the last day, newest first."""
        changed_at = self.overview.get(endpoint_id, {}).get("changed_at", 0.0)
        self._recorded[endpoint_id] = (time.monotonic(), changed_at)
        lines = await self.client.endpoints.decisions(endpoint_id, tail=TAIL)
        self._history.add_decisions((self.name, endpoint_id), lines)
        return self._history.decisions((self.name, endpoint_id), time.time() - DAY_SECONDS)


class Sampler:
    """Samples all accounts at a fixed interval, and tells waiting pages after each round."""

    def __init__(self, settings: DashboardSettings, history: History) -> None:
        self._settings = settings
        self._history = history
        self.accounts = {
            name: Account(name, stoker.Serverless(key, url=settings.engine_url), history)
            for name, key in settings.accounts.items()
        }
        self._round = asyncio.Event()
        self._warned_at = -_WARNING_SECONDS

    def __repr__(self) -> str:
        return f"<Sampler of {len(self.accounts)} accounts>"

    async def run(self) -> None:
        """Sample until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._sample_all())
            group.create_task(self._record_decisions())

    async def _record_decisions(self) -> None:
        while True:
            await asyncio.gather(*(account.record_decisions() for account in self.accounts.values()))
            await asyncio.sleep(self._settings.sample_seconds)

    async def _sample_all(self) -> None:
        while True:
            began = time.monotonic()
            await asyncio.gather(*(self._sample(account) for account in self.accounts.values()))
            self._round.set()
            self._round = asyncio.Event()
            await asyncio.sleep(max(0.0, self._settings.sample_seconds - (time.monotonic() - began)))

    async def close(self) -> None:
        """Close the connections to the engine."""
        for account in self.accounts.values():
            with contextlib.suppress(stoker.StokerError):
                await account.client.aclose()

    async def wait_round(self) -> None:
        """Wait until the next round has ended."""
        await self._round.wait()

    async def _sample(self, account: Account) -> None:
        try:
            async with asyncio.timeout(max(10.0, self._settings.sample_seconds)):
                samples = await account.sample()
        except (stoker.StokerError, TimeoutError, KeyError, TypeError) as fault:
            account.fault = str(fault) or "the engine did not answer in time"
            self._warn(account.fault)
            return
        account.fault = ""
        self._history.add(((account.name, number), sample) for number, sample in samples)
        self._history.forget(
            {(name, number) for name, each in self.accounts.items() for number in each.overview}
        )

    def _warn(self, fault: str) -> None:
        now = time.monotonic()
        if now - self._warned_at >= _WARNING_SECONDS:
            self._warned_at = now
            log.warning("engine_not_read", url=self._settings.engine_url, error=fault[:300])
