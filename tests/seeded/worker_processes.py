"""The worker process on each running machine: loads, reports to an engine, serves requests, and ends with its
machine."""

import asyncio
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from activities.messages import read_label
from stoker_wire.security.ticket import TicketRefused, verify_ticket
from stoker_wire.security.token import ticket_key
from tests.seeded.machine import Machine

if TYPE_CHECKING:
    from tests.seeded.world import World

PERF = {"RTX 3090": 60.0, "RTX 4090": 100.0, "H100": 300.0}
IDLE_REPORT_SECONDS = 10.0
BUSY_REPORT_SECONDS = 1.0


class ConnectionLost(Exception):
    """The worker is gone."""


@dataclass(slots=True, eq=False)
class Job:
    """One request on a worker."""

    request_idx: int
    cost: float
    done: "asyncio.Future[bool]"
    timer: asyncio.TimerHandle | None = None


@dataclass(eq=False)
class WorkerProcess:
    """One worker process. A restarted machine has a new one."""

    world: "World"
    machine: Machine
    started_at: float
    model_seconds: float
    chance: random.Random
    alive: bool = True
    broken: str = ""
    mute: bool = False
    incarnation: str = ""
    """Empty for the official package's worker, which sends no incarnation."""
    jobs: dict[int, Job] = field(default_factory=dict)
    seen: set[int] = field(default_factory=set)
    ended: list[dict[str, Any]] = field(default_factory=list)
    received: int = 0
    free_at: float = 0.0
    reported_at: float = 0.0
    """Time of its last report that reached an engine."""
    task: "asyncio.Task[None] | None" = None
    last_words: "asyncio.Task[None] | None" = None
    stir: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def launch_id(self) -> str:
        label = read_label(self.machine.label)
        return label[1] if label else ""

    @property
    def perf(self) -> float:
        return PERF[self.machine.offer.gpu_name]

    @property
    def ready(self) -> bool:
        loads = self.machine.trouble != "never_loads"
        return (
            self.alive
            and loads
            and not self.broken
            and self.world.now() >= self.started_at + self.model_seconds
        )

    @property
    def ready_seconds(self) -> float:
        """Seconds since its start."""
        return self.world.now() - self.started_at - self.model_seconds

    def begin(self) -> None:
        loop = asyncio.get_running_loop()
        self.task = loop.create_task(self._report_for_ever(), name=f"box {self.machine.id}")
        loop.call_later(self.model_seconds + 0.01, self.stir.set)
        life = self.chance.uniform(5, 1800)
        if self.machine.trouble == "errors":
            loop.call_later(life, self._break)
        elif self.machine.trouble == "mute":
            loop.call_later(life, self._fall_silent)

    def _break(self) -> None:
        self.broken = "CUDA error: an illegal memory access was encountered"
        self.stir.set()

    def _fall_silent(self) -> None:
        self.mute = True
        if self.chance.random() < 0.5:
            asyncio.get_running_loop().call_later(self.chance.uniform(40, 400), self._speak_again)

    def _speak_again(self) -> None:
        self.mute = False
        self.stir.set()

    def die(self) -> None:
        """The machine stopped: its requests are lost. Its last report may still be in transit."""
        if not self.mute and self.chance.random() < self.world.weather.report_late:
            last = self._status(self.world.worker_token(self.launch_id))
            self.last_words = asyncio.get_running_loop().create_task(self._arrive_late(last))
        self.alive = False
        if self.task is not None:
            self.task.cancel()
        for job in list(self.jobs.values()):
            if job.timer is not None:
                job.timer.cancel()
            if not job.done.done():
                job.done.set_exception(ConnectionLost(f"instance {self.machine.id} stopped"))
        self.jobs.clear()

    # requests

    async def work(self, answer: dict[str, Any]) -> None:
        """Serves the request of a route answer."""
        now = self.world.now()
        if not self.ready or self.mute:
            raise ConnectionLost(f"instance {self.machine.id} does not answer")
        key = ticket_key(self.world.worker_token(self.launch_id))
        try:
            ticket = verify_ticket(answer["ticket"], key, worker=self.launch_id, now=now)
        except TicketRefused as refused:
            raise ConnectionLost(f"ticket: {refused}") from None
        if ticket.n in self.seen:
            raise ConnectionLost("ticket: used before")
        self.seen.add(ticket.n)
        self.received += 1
        loop = asyncio.get_running_loop()
        job = Job(ticket.r, ticket.c, loop.create_future())
        self.jobs[ticket.n] = job
        self.free_at = max(now, self.free_at) + ticket.c / self.perf
        job.timer = loop.call_later(self.free_at - now, self._finish, ticket.n)
        self.stir.set()
        await job.done

    def _finish(self, number: int) -> None:
        job = self.jobs.pop(number)
        self.ended.append({"request_idx": job.request_idx, "success": True, "status": "Success"})
        if not job.done.done():
            job.done.set_result(True)
        self.stir.set()

    # reports

    async def _report_for_ever(self) -> None:
        while True:
            await self._report()
            try:
                await asyncio.wait_for(self.stir.wait(), IDLE_REPORT_SECONDS)
                await asyncio.sleep(BUSY_REPORT_SECONDS)
            except TimeoutError:
                pass
            self.stir.clear()

    async def _report(self) -> None:
        await asyncio.sleep(self.chance.uniform(0.01, 0.1))
        weather = self.world.weather
        if self.mute or self.chance.random() < weather.report_lost:
            return
        if self.chance.random() < weather.report_late:
            await asyncio.sleep(self.chance.uniform(1, 15))
        ingest = self.world.some_engine()
        if ingest is None:
            return
        token = self.world.worker_token(self.launch_id)
        ended, self.ended = self.ended, []
        if ended:
            said = {"worker_id": self.machine.id, "mtoken": token, "requests": ended}
            if not await ingest.hear("delete_requests", said):
                self.ended = ended + self.ended
        if await ingest.hear("worker_status", self._status(token)):
            self.reported_at = self.world.now()

    async def _arrive_late(self, status: dict[str, Any]) -> None:
        await asyncio.sleep(self.chance.choice((0.02, 0.2, 2.0, 9.0)))
        ingest = self.world.some_engine()
        if ingest is not None:
            await ingest.hear("worker_status", status)

    def _status(self, token: str) -> dict[str, Any]:
        ready = self.ready
        named = (
            {"incarnation": self.incarnation, "uptime_seconds": self.world.now() - self.started_at}
            if self.incarnation
            else {}
        )
        return named | {
            "id": self.machine.id,
            "mtoken": token,
            "version": "stoker-0.2.0",
            "loadtime": self.model_seconds if ready or self.broken else 0.0,
            "cur_load": sum(job.cost for job in self.jobs.values()),
            "max_perf": self.perf if ready or self.broken else 0.0,
            "error_msg": self.broken,
            "num_requests_working": len(self.jobs),
            "num_requests_recieved": self.received,
            "working_request_idxs": [job.request_idx for job in self.jobs.values()],
            "url": self.url,
        }

    @property
    def url(self) -> str:
        return f"http://10.0.{self.machine.id // 250}.{self.machine.id % 250}:3000"


class Reply:
    """Receives a handler's answer in place of a connection."""

    def respond(self, status: int, body: bytes) -> None:
        """The handler's answer."""
        assert status == 200, body
