"""Requests at a steady rate through the SDK, and a record of each outcome."""

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field

import stoker

ROUTE = "/v1/completions"
TOKENS = 8
TIMEOUT_SECONDS = 150.0
STREAM_EVERY = 10
"""One request in so many is a stream."""


@dataclass(slots=True)
class Sent:
    """One request and its outcome."""

    number: int
    sent_at: float
    ended_at: float | None = None
    attempts: int = 0
    key: str = ""
    worker_id: int = 0
    stream: bool = False
    lost: str = ""
    """Why the caller got no answer; a stream that ended with a typed error in the middle is `cut`, not lost."""
    cut: bool = False
    waited: list[str] = field(default_factory=list)
    """The wait statuses from the engine, with their times."""

    def waits(self, wait: stoker.Wait) -> None:
        """Called by the SDK."""
        self.waited.append(f"{time.monotonic() - self.sent_at:.0f} s: {wait.status}")

    @property
    def seconds(self) -> float:
        """From sending to the answer."""
        return (self.ended_at or time.monotonic()) - self.sent_at


@dataclass
class Traffic:
    """A client that sends `per_second` requests; each prompt has its own length, so that answers cannot be confused."""

    endpoint: stoker.Endpoint
    per_second: float = 3.0
    book: list[Sent] = field(default_factory=list)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _sending: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Starts sending."""
        self._sending = asyncio.create_task(self._send_on_time())

    async def pause(self) -> None:
        """Stops sending; requests that were sent go on."""
        if self._sending is not None:
            self._sending.cancel()
            await asyncio.gather(self._sending, return_exceptions=True)

    async def stop(self) -> None:
        """Stops sending, and waits until every request has ended."""
        await self.pause()
        await asyncio.gather(*self._tasks)

    def busiest(self, among: set[int]) -> int:
        """The worker that answered most recently: a fault of an unused worker would have no effect."""
        lately = Counter(sent.worker_id for sent in self.book[-40:] if sent.worker_id in among)
        return lately.most_common(1)[0][0] if lately else min(among)

    async def settled(self) -> None:
        """Returns once every request sent so far has ended; each has its own timeout."""
        await asyncio.gather(*list(self._tasks))

    def since(self, at: float) -> list[Sent]:
        """Requests that were in progress at this time or sent after it."""
        return [sent for sent in self.book if sent.ended_at is None or sent.ended_at >= at]

    async def _send_on_time(self) -> None:
        began, count = time.monotonic(), 0
        while True:
            task = asyncio.create_task(self._one(len(self.book)))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            count += 1
            await asyncio.sleep(max(0.0, began + count / self.per_second - time.monotonic()))

    async def _one(self, number: int) -> None:
        sent = Sent(number=number, sent_at=time.monotonic(), stream=number % STREAM_EVERY == 0)
        self.book.append(sent)
        try:
            await (self._streamed(sent) if sent.stream else self._answered(sent))
        except stoker.StokerError as fault:
            kind = "stream" if sent.stream else "request"
            sent.lost = f"{kind} {sent.number}: {type(fault).__name__}: {fault}"[:300]
            sent.lost += "".join(f"\n    {said}" for said in sent.waited[-6:])
        except Exception as fault:  # noqa: BLE001 - what should not happen is what is looked for
            sent.lost = f"unexpected {type(fault).__name__}: {fault}"[:300]
        finally:
            sent.ended_at = time.monotonic()

    def _payload(self, sent: Sent) -> dict[str, object]:
        return {"prompt": "lamp" * (sent.number % 200), "max_tokens": TOKENS, "stream": sent.stream}

    async def _answered(self, sent: Sent) -> None:
        answer = await self.endpoint.request(ROUTE, self._payload(sent), cost=TOKENS, timeout=TIMEOUT_SECONDS)
        sent.attempts, sent.key, sent.worker_id = answer.attempts, answer.idempotency_key, answer.worker_id
        usage = answer.json()["usage"]
        wanted = {"completion_tokens": TOKENS, "prompt_tokens": sent.number % 200}
        if usage != wanted:
            sent.lost = f"another request's answer: {usage}, expected {wanted}"

    async def _streamed(self, sent: Sent) -> None:
        events = 0
        try:
            async with self.endpoint.stream(
                ROUTE, self._payload(sent), cost=TOKENS, timeout=TIMEOUT_SECONDS, on_wait=sent.waits
            ) as stream:
                sent.attempts = stream.attempts
                async for _ in stream:
                    events += 1
        except stoker.WorkerFailed as fault:
            if events == 0 and "broke the stream" not in str(fault):
                raise
            sent.cut = True
        if events > TOKENS or (events < TOKENS and not sent.cut):
            sent.lost = (
                f"{events} events, expected {TOKENS}: the stream was given twice, or ended early in silence"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcomes:
    """The results of a period of traffic."""

    sent: int
    lost: int
    retried: int
    cut: int
    """Streams that ended with an error in the middle; they cannot be retried."""
    twice: int
    """Idempotency keys under which the client got more than one answer."""
    longest_seconds: float
    reasons: tuple[str, ...]


def outcomes_of(book: list[Sent]) -> Outcomes:
    """Count."""
    keys = Counter(sent.key for sent in book if sent.key)
    return Outcomes(
        sent=len(book),
        lost=sum(bool(sent.lost) for sent in book),
        retried=sum(sent.attempts > 1 for sent in book),
        cut=sum(sent.cut for sent in book),
        twice=sum(count > 1 for count in keys.values()),
        longest_seconds=max((sent.seconds for sent in book), default=0.0),
        reasons=tuple(sorted({sent.lost for sent in book if sent.lost})),
    )
