"""Faults of a model and of its machine: a crash, a harmful request, a long request, probes, a machine that slept."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator

import stoker
from benchmarks.faults.stage import Stage
from benchmarks.faults.traffic import ROUTE
from hosts.agent import proc
from run.demo.chaos import instance_pid

ODD_TOKENS_PER_SECOND = 4
"""Tokens a second for the prompt `slow` (`odd_model/model_server.py`)."""
STREAMS = 3
HEALTHY_SECONDS = 5.0
"""After a recovery: no second repair within this time, seconds."""
NAME = "odd"
_REPAIRS = frozenset({"reboot", "destroy", "fail"})


@contextlib.asynccontextmanager
async def _odd_endpoint(
    stage: Stage, *, workers: int = 1, **parameters: float
) -> AsyncIterator[stoker.Endpoint]:
    """A second endpoint whose model has the faults of `odd_model`. Its workers must be the same at the end."""
    await stage.second_endpoint(
        NAME, template="odd-model", min_workers=workers, max_workers=workers, **parameters
    )
    endpoint = await stage.client.get_endpoint(NAME)
    number = endpoint.id
    try:
        before = {worker.id for worker in await stage.client.endpoints.workers(number)}
        yield endpoint
        after = {worker.id for worker in await stage.client.endpoints.workers(number)}
        assert after == before, f"the workers were {sorted(before)} before, they are {sorted(after)} now"
        hosts = await stage.client.endpoints.hosts(number)
        assert not hosts["blocked"], f"hosts are blocked: {hosts['blocked']}"
    finally:
        await stage.client.endpoints.delete(number)
        await stage.until_released(NAME)


async def _until_hot(stage: Stage, endpoint: stoker.Endpoint, count: int) -> None:
    """Returns once so many workers have been ready for `HEALTHY_SECONDS`."""
    since = time.monotonic()
    async with asyncio.timeout(120):
        while time.monotonic() - since < HEALTHY_SECONDS:
            workers = await stage.client.endpoints.workers(endpoint.id)
            if sum(worker.status == "idle" for worker in workers) < count:
                since = time.monotonic()
            await asyncio.sleep(0.2)


async def poison_request(stage: Stage) -> float:
    """A request crashes the model wherever it runs: it ends two of three models, and no machine is lost."""
    async with _odd_endpoint(stage, workers=3) as endpoint:
        others = [
            asyncio.create_task(endpoint.request(ROUTE, {"prompt": f"{n}", "max_tokens": 20}, cost=20.0))
            for n in range(12)
        ]
        crash = {"prompt": "crash", "max_tokens": 1}
        for _ in range(3):
            said = "it was answered"
            try:
                await endpoint.request(ROUTE, crash, cost=1.0, timeout=90.0)
            except stoker.StokerError as fault:
                said = str(fault)
            assert "while they had this request" in said, f"the harmful request: {said}"
        for answer in await asyncio.gather(*others):
            assert answer.json()["usage"]["completion_tokens"] == 20, "an answer is short"
        await _until_hot(stage, endpoint, 3)
        assert _crashes(stage) == 2, f"the request ended {_crashes(stage)} models; expected two"
    return time.monotonic()


async def idle_crash(stage: Stage) -> float:
    """The model of an idle worker dies once, and the start script restarts it."""
    async with _odd_endpoint(stage) as endpoint:
        only = (await _workers(stage, endpoint))[0].id
        pid = instance_pid(stage.stack.state_dir, only, "model_server.py")
        assert pid is not None, "no model server runs"
        os.kill(pid, signal.SIGKILL)
        async with asyncio.timeout(60):
            while instance_pid(stage.stack.state_dir, only, "model_server.py") in (None, pid):  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.05)
        await _until_hot(stage, endpoint, 1)
    return time.monotonic()


async def long_request(stage: Stage, seconds: float) -> float:
    """A request takes several times longer than the inactivity timeout and the drain deadline together."""
    tokens = int(seconds * ODD_TOKENS_PER_SECOND)
    limits = {"inactivity_timeout": seconds / 6, "drain_seconds_max": seconds / 5}
    async with _odd_endpoint(stage, **limits) as endpoint:
        answer = await endpoint.request(
            ROUTE, {"prompt": "slow", "max_tokens": tokens}, cost=float(tokens), timeout=10 * seconds
        )
        assert (answer.attempts, answer.json()["usage"]["completion_tokens"]) == (1, tokens), (
            f"{answer.attempts} attempts, {answer.json()}; expected one attempt and {tokens} tokens"
        )
    return time.monotonic()


async def serial_probes(stage: Stage, seconds: float) -> float:
    """A health probe ends running streams of this model: streams follow each other, and all must be whole."""
    tokens = int(seconds * ODD_TOKENS_PER_SECOND)
    async with _odd_endpoint(stage) as endpoint:

        async def events() -> int:
            body = {"prompt": "slow", "max_tokens": tokens, "stream": True}
            async with endpoint.stream(
                ROUTE, body, cost=float(tokens), timeout=10 * seconds * STREAMS
            ) as stream:
                return len([event async for event in stream])

        seen = await asyncio.gather(*(events() for _ in range(STREAMS)))
        assert seen == [tokens] * STREAMS, f"events per stream: {seen}; expected {tokens} each"
    return time.monotonic()


async def sleep(stage: Stage, seconds: float) -> float:
    """Every process of the deployment stops, as when a laptop's lid is closed. Its clients sleep too."""
    await stage.traffic.pause()
    slept_at = time.time()
    stopped: list[int] = []
    try:
        for _ in range(2):  # a process may have been made during the first pass
            for pid in set(proc.descendants(os.getpid())) - {os.getpid(), *stopped}:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGSTOP)
                    stopped.append(pid)
        await asyncio.sleep(seconds)
    finally:
        for pid in stopped:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
    struck_at = time.monotonic()
    stage.traffic.start()
    await stage.until_whole()
    await asyncio.sleep(seconds / 2)  # a repair would begin after 20 s
    decisions = await stage.client.endpoints.decisions(stage.endpoint.id, tail=100)
    blamed = [each for each in decisions if each["at"] > slept_at and each["kind"] in _REPAIRS]
    assert not blamed, f"workers were blamed on waking: {blamed}"
    return struck_at


async def _workers(stage: Stage, endpoint: stoker.Endpoint) -> list[stoker.WorkerRecord]:
    return list(await stage.client.endpoints.workers(endpoint.id))


def _crashes(stage: Stage) -> int:
    """How often the model of any instance crashed."""
    return sum(len(file.read_text().splitlines()) for file in stage.stack.state_dir.rglob("crashes"))
