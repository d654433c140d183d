"""Which worker a request goes to, or its place in the line. No I/O: time and chance are arguments."""

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator
from typing import Protocol

from engine.request_log import Outcome
from engine.routing.broken_requests import NEAR_SECONDS, VERDICT_SECONDS
from engine.routing.endpoint import Endpoint
from engine.routing.request_queue import QueuedRequest
from engine.routing.worker import KnownWorker
from engine.settings import Limits, Timing
from policy.routing.worker_selection import AllBusy, Choice, choose
from stoker_wire.security.ticket import TICKET_SECONDS
from stoker_wire.states import WorkerState

PAUSE_SECONDS = 1.0
"""A request re-routed twice within this time waits: the official client comes again without any pause or limit."""
GIVEN_SECONDS = 600.0
"""How long a request is remembered with its worker: the official client's patience with a worker."""
ENDED_SECONDS = 5.0
"""… and after the worker said that it ended: its client may see the failure a moment later."""
AVOIDING_SCAN_MAX = 64
"""Requests passed over in one look because the free worker had failed them."""

_SWEEP_GAP_SECONDS = 5.0
"""A longer gap between two sweeps is this engine's own absence: silence is counted from its end."""
_ENDS_REPORTED_SECONDS = 4.0
"""A worker that broke and goes on to report has reported by then how a request ended; without that, it had the request."""
_BROKEN = frozenset({WorkerState.ERROR, WorkerState.REBOOTING})
_REJECTED, _CANCELLED = "Rejected", "Cancelled"

CAUSE_SUSPECT = "a worker does not answer its clients"
CAUSE_DRAINED = "a draining worker holds nothing"


class RoutedCall(Protocol):
    """A parsed route request."""

    @property
    def cost(self) -> float:
        """Load that it brings."""
        ...

    @property
    def request_idx(self) -> int:
        """0: new."""
        ...

    @property
    def replay_timeout(self) -> float:
        """Seconds for which its place is kept between calls."""
        ...

    @property
    def failed_url(self) -> str:
        """The worker that just failed it."""
        ...

    @property
    def fingerprint(self) -> str:
        """Equal for all copies of the request; empty: not told."""
        ...


class Dispatcher:
    """Routes requests over the endpoints' soft state."""

    def __init__(self, *, limits: Limits, timing: Timing, started_at: float, draw: Callable[[], int]) -> None:
        self._limits = limits
        self._timing = timing
        self._started_at = started_at
        self._draw = draw
        self.urgent: Callable[[Endpoint], None] = lambda _: None
        """Told when an endpoint has something to say that cannot wait."""
        self.later: Callable[[Endpoint, float], None] = lambda _, __: None
        """Told in how many seconds a busy worker will be near enough to its end for the first in the line."""
        self.ended: Callable[[str, QueuedRequest, Outcome], None] | None = None
        """Told of each request when nothing more can happen to it, by its endpoint's name."""

    # -- a client calls

    def ask(self, endpoint: Endpoint, asked: RoutedCall, now: float) -> QueuedRequest:
        """A call of `/route/`: afterwards the place has a worker, or it waits in the line."""
        endpoint.batcher.last_request_at = now
        if asked.failed_url:
            self._blame_url(endpoint, asked, now)
        place = self._known(endpoint, asked, now) if asked.request_idx else None
        if place is None and (refused := self._refused_copy(endpoint, asked, now)) is not None:
            return refused
        if place is None:
            place = self._arrive(endpoint, asked, now)
        if self.paused(place, now) or self._refuse(endpoint, place, now):
            return place
        if not endpoint.line.held_count:
            self._try(endpoint, place, now)
        if place.worker is None:
            self._heed_backlog(endpoint, now)
            if len(endpoint.line) > self._limits.queue_places_max and place.arrived_at == now:
                self._turn_away(endpoint, place)
        return place

    def paused(self, place: QueuedRequest, now: float) -> bool:
        """Whether the request failed so often in so short a time that its client has to pause."""
        return place.worker is None and now < place.paused_until

    def hold(
        self, endpoint: Endpoint, place: QueuedRequest, wake: Callable[[bool], None], now: float
    ) -> None:
        """A call stays open for the place; `wake` ends it, saying whether a worker was given."""
        endpoint.line.hold(place, wake)
        if endpoint.candidates:
            self.pump(endpoint, now)

    def leave(self, endpoint: Endpoint, place: QueuedRequest, now: float) -> None:
        """The held call ended unanswered or with Waiting: the place keeps its turn for its replay timeout."""
        place.seen_at = now
        if place.worker is None:
            endpoint.line.let_go(place)

    def give_back(self, endpoint: Endpoint, place: QueuedRequest, now: float) -> None:
        """The worker was given, but the client had gone: nobody holds the ticket."""
        worker = place.worker
        if worker is None:
            return
        worker.ledger.withdraw(place.request_idx)
        endpoint.reweigh(worker)
        endpoint.given.pop(place.request_idx, None)
        place.worker = None
        place.seen_at = now
        self._line_up(endpoint, place)
        self.pump(endpoint, now)

    # -- capacity changes

    def refresh(self, endpoint: Endpoint, now: float) -> None:
        """After any news of a worker: who can be routed to, and then whom they can serve."""
        trust = now - self._started_at <= self._timing.memo_trust_seconds
        endpoint.refresh(now, trust_memo=trust)
        self.pump(endpoint, now)

    def pump(self, endpoint: Endpoint, now: float) -> None:
        """Give what is free to who waits, in turn."""
        while endpoint.line.held_count and self._serve_next(endpoint, now):
            pass

    def _serve_next(self, endpoint: Endpoint, now: float) -> bool:
        """Whether somebody was given a worker."""
        for passed_over, place in enumerate(endpoint.line.in_service_order(endpoint.late_cutoff(now))):
            wake = place.wake
            if self._refuse(endpoint, place, now):
                if wake is not None:
                    wake(False)
                return True
            if self._try(endpoint, place, now):
                if wake is not None:
                    wake(True)
                return True
            if not (place.avoid or endpoint.breakages) or passed_over >= AVOIDING_SCAN_MAX:
                return False
        return False

    def finished(
        self,
        endpoint: Endpoint,
        worker: KnownWorker,
        request_idx: int,
        *,
        success: bool,
        now: float,
        busy_seconds: float = 0.0,
        status: str = "",
        earlier: bool = False,
    ) -> bool:
        """The worker said that a request ended; False if this engine never gave it that request.

        `busy_seconds` is how long it was at it, where it says so. `status` is its word for the end. `earlier`: an
        earlier process of the worker says so, which is news of the request and not of the worker.
        """
        place = endpoint.given.get(request_idx)
        if earlier and (place is None or not worker.began_after(place.given_at)):
            return False  # it was given to the current process since
        known = worker.ledger.finish(request_idx)
        endpoint.reweigh(worker)
        endpoint.batcher.record_activity(now)
        if place is None or place.worker is not worker:
            self._judge_end(endpoint, worker, request_idx, status, success=success, now=now)
            return known
        if status == _REJECTED:
            pass  # it never reached the model
        elif success and status != _CANCELLED:
            endpoint.breakages.served(place.key)
        else:
            self._left(endpoint, worker, place, now)
        place.finished = True
        place.succeeded = success
        place.took_s = now - place.given_at
        place.given_at = now
        endpoint.ended[request_idx] = endpoint.given.pop(request_idx)
        if success and not earlier:
            worker.record_success()
            if worker.end_report_seconds > 0:
                endpoint.service_times.learn(place.cost, worker.believed_perf, busy_seconds)
        return True

    def heed_drain(self, endpoint: Endpoint, worker: KnownWorker, now: float) -> None:
        """Say once, at once, that a draining worker is empty."""
        if worker.drained and not worker.drain_said:
            worker.drain_said = True
            endpoint.batcher.request_urgent(CAUSE_DRAINED, now)
            self.urgent(endpoint)

    def sweep(self, endpoint: Endpoint, now: float) -> None:
        """Once a second: forget what ran out, notice who fell silent, serve who can be served."""
        if now - endpoint.swept_at > _SWEEP_GAP_SECONDS:
            endpoint.awake_since = now
        endpoint.swept_at = now
        for place in endpoint.line.expired(now):
            endpoint.line.remove(place)
            endpoint.waiting.pop(place.request_idx, None)
            endpoint.tally.places_expired += 1
            self._note(endpoint, place, Outcome.EXPIRED)
        for worker in list(endpoint.workers.values()):
            endpoint.tally.tickets_expired += worker.ledger.expire(now)
            if not worker.listed and now - worker.heard_at > self._timing.report_fresh_seconds * 2:
                del endpoint.workers[worker.launch_id]
            self._heed_break(endpoint, worker, now)
            self.heed_drain(endpoint, worker, now)
            if worker.disagrees:
                endpoint.batcher.mark_changed()
        for record, seconds in ((endpoint.given, GIVEN_SECONDS), (endpoint.ended, ENDED_SECONDS)):
            for place in _forget(record, now - seconds, self._limits.requests_known_max):
                self._note(endpoint, place, _outcome(place))
        if any(worker.holds and worker.fresh(now, self._timing) for worker in endpoint.workers.values()):
            endpoint.batcher.record_activity(now)
        self.refresh(endpoint, now)
        if endpoint.line:
            self._heed_backlog(endpoint, now)
        else:
            endpoint.escalation.reset_backlog()

    def close_books(self, endpoint: Endpoint) -> None:
        """The endpoint is gone, or the engine stops: what has not ended is recorded as it stands."""
        for place in (*endpoint.waiting.values(), *endpoint.given.values()):
            self._note(endpoint, place, Outcome.CUT_OFF)
        for place in endpoint.ended.values():
            self._note(endpoint, place, _outcome(place))
        endpoint.given.clear()
        endpoint.ended.clear()

    # -- inside

    def _note(self, endpoint: Endpoint, place: QueuedRequest, outcome: Outcome) -> None:
        if self.ended is not None:
            self.ended(endpoint.name, place, outcome)

    def _known(self, endpoint: Endpoint, asked: RoutedCall, now: float) -> QueuedRequest | None:
        request_idx = asked.request_idx
        place = endpoint.waiting.get(request_idx)
        if place is not None:
            place.seen_at = now
            place.replay_timeout = asked.replay_timeout
            return place
        place = endpoint.given.pop(request_idx, None) or endpoint.ended.pop(request_idx, None)
        if place is None:
            return None
        self._rerouted(endpoint, place, now)
        place.replay_timeout = asked.replay_timeout
        return place

    def _arrive(self, endpoint: Endpoint, asked: RoutedCall, now: float) -> QueuedRequest:
        request_idx = asked.request_idx
        if not request_idx:
            request_idx = self._draw()
            while request_idx in endpoint.waiting or request_idx in endpoint.given:
                request_idx = self._draw()
            endpoint.batcher.record_arrival(asked.cost, now)
        # An index of an engine that is gone is as good as one of ours: its request starts anew at the end.
        place = QueuedRequest(request_idx, asked.cost, now, asked.replay_timeout, asked.fingerprint)
        place.again = asked.request_idx != 0
        if asked.failed_url:
            place.avoid = frozenset(
                w.launch_id for w in endpoint.workers.values() if w.route_url == asked.failed_url
            )
        self._line_up(endpoint, place)
        return place

    def _line_up(self, endpoint: Endpoint, place: QueuedRequest) -> None:
        endpoint.waiting[place.request_idx] = place
        endpoint.line.add(place)

    def _turn_away(self, endpoint: Endpoint, place: QueuedRequest) -> None:
        """The line is full: the newest keeps no place, and is told so."""
        endpoint.line.remove(place)
        endpoint.waiting.pop(place.request_idx, None)
        place.turned_away = True
        self._note(endpoint, place, Outcome.TURNED_AWAY)

    def _rerouted(self, endpoint: Endpoint, place: QueuedRequest, now: float) -> None:
        """The request comes again although it was given a worker: that worker failed it."""
        endpoint.tally.reroutes += 1
        worker, place.worker = place.worker, None
        if worker is not None:
            worker.ledger.withdraw(place.request_idx)
            endpoint.reweigh(worker)
            place.avoid |= {worker.launch_id}
            record = endpoint.breakages.of(place.key, now)
            counted = record is not None and (worker.launch_id, worker.broke_at) in record.breaks
            if not place.finished and not counted:
                worker.leave_unserved(place, now, reported=False)
            if record is not None and place.key in worker.lately:
                place.verdict_on = (worker, now)
            if not place.finished and not worker.began_after(place.given_at):
                self._blame(endpoint, worker, now)
        place.finished = place.succeeded = False
        place.took_s = None
        if now - place.rerouted_at < PAUSE_SECONDS:
            place.paused_until = now + PAUSE_SECONDS
        place.rerouted_at = place.seen_at = now
        self._line_up(endpoint, place)

    def _blame_url(self, endpoint: Endpoint, asked: RoutedCall, now: float) -> None:
        place = endpoint.given.get(asked.request_idx) or endpoint.ended.get(asked.request_idx)
        for worker in list(endpoint.workers.values()):
            if worker.route_url != asked.failed_url or worker.suspect_since is not None:
                continue
            if place is None or place.worker is not worker or not worker.began_after(place.given_at):
                self._blame(endpoint, worker, now)

    def _blame(self, endpoint: Endpoint, worker: KnownWorker, now: float) -> None:
        worker.record_failure(now)
        self.refresh(endpoint, now)
        endpoint.batcher.request_urgent(CAUSE_SUSPECT, now)
        self.urgent(endpoint)

    def _try(self, endpoint: Endpoint, place: QueuedRequest, now: float) -> bool:
        record = endpoint.breakages.of(place.key, now) if endpoint.breakages else None
        if record is not None:
            if place.verdict_on is not None or _is_tried(endpoint, record.retry, place):
                return False
            place.avoid |= record.launch_ids
        chosen = choose(
            endpoint.candidates,
            place.cost,
            max_queue_time=endpoint.config.max_queue_time,
            avoid=place.avoid,
            sequence=endpoint.tally.routes_given,
            now=now,
            prefetch=endpoint.prefetch,
            cost_ratio=endpoint.service_times.mean_ratio,
        )
        if not isinstance(chosen, Choice):
            if isinstance(chosen, AllBusy):
                self.later(endpoint, chosen.retry_seconds)
            return False
        worker = endpoint.workers[chosen.candidate.launch_id]
        if record is not None:
            record.retry = place
        endpoint.line.serve(place, endpoint.late_cutoff(now))
        del endpoint.waiting[place.request_idx]
        place.worker, place.given_at, place.reqnum = worker, now, self._draw()
        if place.waited_s is None:
            place.waited_s = now - place.arrived_at
        endpoint.given[place.request_idx] = place
        if len(endpoint.given) > self._limits.requests_known_max:
            self._note(endpoint, endpoint.given.popitem(last=False)[1], Outcome.UNKNOWN)
        worker.ledger.issue(place.request_idx, place.cost, now=now, expires_at=now + TICKET_SECONDS)
        endpoint.reweigh(worker)
        self._heed_queue(endpoint, now)
        return True

    def _heed_backlog(self, endpoint: Endpoint, now: float) -> None:
        """Call the workflow when requests begin to wait with nobody to serve them, and each time they double."""
        if endpoint.candidates:
            endpoint.escalation.reset_backlog()
            self._heed_queue(endpoint, now)
        elif not endpoint.stopped:
            # a cost of 0 is a request too
            self._alarm(
                endpoint, endpoint.escalation.on_backlog(endpoint.line.load + len(endpoint.line)), now
            )

    def _heed_queue(self, endpoint: Endpoint, now: float) -> None:
        """Call the workflow when the expected queue time passes its target, and each time it has grown by half."""
        target = endpoint.config.target_queue_time
        self._alarm(endpoint, endpoint.escalation.on_queue_time(endpoint.queue_seconds, target), now)

    def _alarm(self, endpoint: Endpoint, cause: str | None, now: float) -> None:
        if cause is not None:
            endpoint.batcher.request_urgent(cause, now)
            self.urgent(endpoint)

    # -- requests that break workers

    def broke(
        self,
        endpoint: Endpoint,
        worker: KnownWorker,
        held: Collection[int],
        why: str,
        now: float,
        *,
        reports_ends: bool = False,
    ) -> None:
        """A worker broke while it held these requests: each is retried once, elsewhere.

        `reports_ends`: it goes on to report how each request ended. Then only those count that the model had: the
        others in its line never reached the model.
        """
        worker.broke_at, worker.broke_by = now, why
        left = {key: each for key, each in worker.lately.items() if now - each[0] <= NEAR_SECONDS}
        worker.lately = {key: each for key, each in left.items() if reports_ends and not each[2]}
        places = [place for key, (_, place, _) in left.items() if key not in worker.lately]
        for request_idx in () if reports_ends else held:
            place = endpoint.given.get(request_idx)
            if place is not None and place.worker is worker:
                places.append(place)
        for place in places:
            self._count_break(endpoint, worker, place, now)
        self.pump(endpoint, now)

    def _count_break(self, endpoint: Endpoint, worker: KnownWorker, place: QueuedRequest, now: float) -> None:
        record = endpoint.breakages.broke(place.key, worker, now)
        if place.worker is worker:
            return
        # Its client was faster than the worker's report.
        if endpoint.given.get(place.request_idx) is place:
            record.retry = place
        elif endpoint.waiting.get(place.request_idx) is place and place.verdict_on is None:
            for other in endpoint.workers.values():
                if other is not worker and place.key in other.lately:
                    record.retry, place.verdict_on = place, (other, other.lately[place.key][0])

    def _left(self, endpoint: Endpoint, worker: KnownWorker, place: QueuedRequest, now: float) -> None:
        """A worker reports that a request failed on it: because the worker broke, or will be seen to have."""
        if now - worker.broke_at <= NEAR_SECONDS:
            worker.lately.pop(place.key, None)
            self._count_break(endpoint, worker, place, now)
        else:
            worker.leave_unserved(place, now, reported=True)

    def _judge_end(
        self,
        endpoint: Endpoint,
        worker: KnownWorker,
        request_idx: int,
        status: str,
        *,
        success: bool,
        now: float,
    ) -> None:
        """The worker reports the end of a request whose client was faster and has left it already."""
        place = endpoint.waiting.get(request_idx) or endpoint.given.get(request_idx)
        if place is None or place.key not in worker.lately:
            return
        if status == _REJECTED or (success and status != _CANCELLED):
            del worker.lately[place.key]  # it did not break with it
        else:
            self._left(endpoint, worker, place, now)
        self.pump(endpoint, now)

    def _heed_break(self, endpoint: Endpoint, worker: KnownWorker, now: float) -> None:
        """Notice a worker that broke without a report of its own: silence, or its workflow's word."""
        if now - worker.broke_at <= NEAR_SECONDS:
            for at, place, reported in list(worker.lately.values()):
                if not reported and now - at >= _ENDS_REPORTED_SECONDS:
                    self._left(endpoint, worker, place, now)
        by_workflow = worker.state in _BROKEN and worker.since != worker.broke_state_since
        heard_at = max(worker.heard_at, endpoint.awake_since)
        silent = worker.heard_at > max(0.0, worker.broke_at) and (
            now - heard_at > self._timing.report_fresh_seconds
        )
        if by_workflow:
            worker.broke_state_since = worker.since
        if not silent and not (by_workflow and now - worker.broke_at > NEAR_SECONDS):
            return
        held = [idx for idx, place in endpoint.given.items() if place.worker is worker]
        # What left it unserved since it was last heard left it for that.
        for key, (at, place, reported) in worker.lately.items():
            worker.lately[key] = (now if at >= worker.heard_at - NEAR_SECONDS else at, place, reported)
        self.broke(endpoint, worker, held, worker.memo_error or "it fell silent", now)

    def _refused_copy(self, endpoint: Endpoint, asked: RoutedCall, now: float) -> QueuedRequest | None:
        """A new copy of a request that is refused: it does not count as an arrival."""
        if not asked.fingerprint or not endpoint.breakages:
            return None
        record = endpoint.breakages.of(asked.fingerprint, now)
        if record is None or not record.is_refused:
            return None
        place = QueuedRequest(asked.request_idx or self._draw(), asked.cost, now, 0.0, asked.fingerprint)
        place.refusal = record.sentence
        return place

    def _refuse(self, endpoint: Endpoint, place: QueuedRequest, now: float) -> bool:
        """Whether the request is refused because two workers broke with it; it leaves the line then."""
        if not endpoint.breakages:
            return False
        self._judge_verdict(endpoint, place, now)
        record = endpoint.breakages.of(place.key, now)
        if record is None or not record.is_refused:
            return False
        place.refusal = record.sentence
        if endpoint.waiting.pop(place.request_idx, None) is not None:
            endpoint.line.remove(place)
        self._note(endpoint, place, Outcome.FAILED)
        return True

    def _judge_verdict(self, endpoint: Endpoint, place: QueuedRequest, now: float) -> None:
        """Let a request go on whose last worker has shown itself well, or count a worker that is gone as broken."""
        if place.verdict_on is None:
            return
        worker, since = place.verdict_on
        if endpoint.workers.get(worker.launch_id) is not worker:
            place.verdict_on = None
            if not worker.draining:
                endpoint.breakages.broke(place.key, worker, now)
        elif place.key not in worker.lately or (
            worker.heard_at >= since + VERDICT_SECONDS and not worker.error
        ):
            worker.lately.pop(place.key, None)
            place.verdict_on = None

    # -- a client that cannot come again

    def abandon(self, endpoint: Endpoint, place: QueuedRequest, outcome: Outcome, now: float) -> None:
        """Nobody can come for this request any more: it leaves the line at once, with this outcome, or its unused ticket is void."""
        if endpoint.gone:
            return  # its books are closed
        if endpoint.waiting.get(place.request_idx) is place:
            endpoint.line.remove(place)
            del endpoint.waiting[place.request_idx]
            if outcome is Outcome.EXPIRED:
                endpoint.tally.places_expired += 1
            self._note(endpoint, place, outcome)
        elif endpoint.given.get(place.request_idx) is place and place.worker is not None:
            place.worker.ledger.withdraw(place.request_idx)
            endpoint.reweigh(place.worker)
            del endpoint.given[place.request_idx]
            self._note(endpoint, place, _outcome(place))
            self.pump(endpoint, now)


def _is_tried(endpoint: Endpoint, tried: QueuedRequest | None, place: QueuedRequest) -> bool:
    """Whether another copy of the request is with a worker now, or its last worker is still being judged."""
    if tried is None or tried is place:
        return False
    if tried.verdict_on is not None and endpoint.waiting.get(tried.request_idx) is tried:
        return True
    worker = tried.worker
    given = endpoint.given.get(tried.request_idx) is tried
    return given and worker is not None and worker.ledger.knows(tried.request_idx)


def _outcome(place: QueuedRequest) -> Outcome:
    if not place.finished:
        return Outcome.UNKNOWN
    return Outcome.DONE if place.succeeded else Outcome.FAILED


def _forget(places: OrderedDict[int, QueuedRequest], before: float, keep_max: int) -> Iterator[QueuedRequest]:
    """Drop the oldest of an ordered record."""
    while places:
        place = next(iter(places.values()))
        if place.given_at > before and len(places) <= keep_max:
            return
        places.popitem(last=False)
        yield place
