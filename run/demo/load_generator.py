"""Sends the demo's requests on time through the SDK, and records the results."""

import asyncio

import stoker
from run.demo.fleet_sampler import FleetSampler
from run.demo.samples import Record, Served
from run.demo.traffic import Arrival

ROUTE = "/v1/completions"
PROMPT = "The lamp was lit and "


class LoadGenerator:
    """A client that sends requests to one endpoint."""

    def __init__(self, endpoint: stoker.Endpoint, sampler: FleetSampler, record: Record) -> None:
        self._endpoint = endpoint
        self._sampler = sampler
        self._record = record
        self._count = 0

    async def play(self, arrivals: tuple[Arrival, ...]) -> None:
        """Send every request at its time and return when all are answered."""
        began = self._sampler.clock_s
        async with asyncio.TaskGroup() as group:
            for arrival in arrivals:
                await asyncio.sleep(max(0.0, began + arrival.at_s - self._sampler.clock_s))
                group.create_task(self.request(arrival.tokens))

    async def request(self, tokens: int) -> None:
        """Send one request and record its answer or failure."""
        self._count += 1
        number = self._count
        self._sampler.on_sent(number, tokens)
        try:
            answer = await self._endpoint.request(
                ROUTE, {"prompt": PROMPT, "max_tokens": tokens}, cost=tokens, timeout=120
            )
            if len(answer.json()["choices"][0]["text"]) == 0:
                self._record.failures.append(f"request {number}: the model answered no text")
        except (stoker.StokerError, KeyError, IndexError) as fault:
            self._record.failures.append(f"request {number}: {type(fault).__name__}: {fault}")
            return
        finally:
            self._sampler.on_answered(number)
        timing = answer.timing
        self._record.served.append(
            Served(
                tokens=tokens,
                waited_s=timing.waited_s,
                queued_s=timing.queued_s or 0.0,
                total_s=timing.total_s,
                worker_id=answer.worker_id,
                attempts=answer.attempts,
            )
        )
