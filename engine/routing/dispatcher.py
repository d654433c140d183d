"""Assigns requests to workers, or queues them. No I/O: time and random numbers are arguments."""

from collections.abc import Callable, Collection

from engine.request_log import Outcome
from engine.routing.client_keys import ClientKeyAccount
from engine.routing.endpoint import Endpoint
from engine.routing.failure_detection.broken_workers import (
    detect_break,
    finish_left,
    identify,
    is_retried,
    record_break,
    record_failed_request,
    record_left,
    settle_suspect,
)
from engine.routing.requests.ended_requests import ended_request, forget_oldest, outcome_of
from engine.routing.requests.request_queue import QueuedRequest
from engine.routing.requests.routed_call import RoutedCall
from engine.routing.urgent_signals import CAUSE_DRAINED, CAUSE_SUSPECT, UrgentSignals
from engine.routing.worker import KnownWorker
from engine.settings import Limits, Timing
from policy.routing.affinity import affinity_point, owners
from policy.routing.worker_selection import AllBusy, Choice, choose
from policy.tuning import DEFAULT_TUNING
from stoker_wire.errors.problem import Problem
from stoker_wire.security.ticket import TICKET_SECONDS

AVOIDING_SCAN_MAX = 64
"""Number of requests skipped in one pass because they avoid the free worker."""

_REJECTED, _CANCELLED = "Rejected", "Cancelled"
_NO_RESULT = frozenset({_REJECTED, _CANCELLED})


class Dispatcher:
    """Routes requests over the endpoints' soft state."""

    def __init__(
        self,
        *,
        limits: Limits,
        timing: Timing,
        started_at: float,
        draw: Callable[[], int],
        on_urgent: Callable[[Endpoint], None] = lambda _: None,
        on_later: Callable[[Endpoint, float], None] = lambda _, __: None,
        on_ended: Callable[[str, QueuedRequest, Outcome], None] | None = None,
    ) -> None:
        """
        Args:
            draw: a random request index or reqnum.
            on_urgent: the endpoint has metrics that must be sent at once.
            on_later: seconds after which a busy worker can take the first queued request.
            on_ended: endpoint name, request, outcome; called once, when nothing more can happen to the request.
        """
        self._limits = limits
        self._timing = timing
        self._started_at = started_at
        self._draw = draw
        self.on_urgent = on_urgent
        self._signals = UrgentSignals(on_urgent)
        self._on_later = on_later
        self._on_ended = on_ended

    # -- calls of clients

    def route(
        self, endpoint: Endpoint, asked: RoutedCall, now: float, account: ClientKeyAccount | None = None
    ) -> QueuedRequest:
        """Handle a call of `/route/`: the returned request has a worker, is queued, or is refused.

        `account` is the named key that calls. Its limits are checked before, by `admit`.
        """
        endpoint.metrics_batcher.last_request_at = now
        if asked.failed_url:
            self._record_failed_url(endpoint, asked, now)
        request = self._known(endpoint, asked, now) if asked.request_idx else None
        if request is None and (refused := self._refused_copy(endpoint, asked, now)) is not None:
            return refused
        if request is None:
            request = self._arrive(endpoint, asked, now, account)
        if self.is_paused(request, now) or self._refuse(endpoint, request, now):
            return request
        if endpoint.request_queue.held_count or not self._assign(endpoint, request, now):
            if request.request_idx not in endpoint.waiting:
                self._enqueue(endpoint, request)
            self._signals.signal_backlog(endpoint, now)
            if len(endpoint.request_queue) > self._limits.queue_places_max and request.arrived_at == now:
                self._turn_away(endpoint, endpoint.request_queue.displaced_by(request))
        return request

    def admit(self, endpoint: Endpoint, account: ClientKeyAccount, asked: RoutedCall, now: float) -> None:
        """Count a call against the limits of its key: every call that may get another ticket, and no poll.

        Raises:
            Problem: 429, a limit is reached.
        """
        request_idx = asked.request_idx
        if request_idx in endpoint.waiting:
            return
        known = endpoint.assigned.get(request_idx) or endpoint.finished.get(request_idx)
        try:
            account.admit(asked.cost if known is None else max(known.cost, asked.cost), now)
        except Problem:
            endpoint.counters.routes_limited += 1
            raise

    def is_paused(self, request: QueuedRequest, now: float) -> bool:
        """Whether the request was re-routed so often in so short a time that its client has to pause."""
        return request.worker is None and now < request.paused_until

    def hold(
        self, endpoint: Endpoint, request: QueuedRequest, wake: Callable[[bool], None], now: float
    ) -> None:
        """A call is held for the request; `wake` ends it and says whether a worker was assigned."""
        endpoint.request_queue.hold(request, wake)
        if endpoint.candidates:
            self.serve_queue(endpoint, now)

    def end_call(self, endpoint: Endpoint, request: QueuedRequest, now: float) -> None:
        """The held call ended. The request keeps its position for its replay timeout."""
        request.seen_at = now
        if request.worker is None:
            endpoint.request_queue.end_hold(request)

    def unassign(self, endpoint: Endpoint, request: QueuedRequest, now: float) -> None:
        """A worker was assigned, but the client had disconnected: the ticket was not delivered."""
        worker = request.worker
        if worker is None:
            return
        worker.outstanding.withdraw(request.request_idx)
        endpoint.update_load(worker)
        endpoint.assigned.pop(request.request_idx, None)
        if request.account is not None:
            request.account.spend(-request.dollars, now)
        request.worker = None
        request.seen_at = now
        self._enqueue(endpoint, request)
        self.serve_queue(endpoint, now)

    def abandon(self, endpoint: Endpoint, request: QueuedRequest, outcome: Outcome, now: float) -> None:
        """The client cannot ask again: dequeue the request with this outcome, or withdraw its unused ticket."""
        if endpoint.gone:
            return  # `log_unfinished` has recorded it
        if endpoint.waiting.get(request.request_idx) is request:
            endpoint.request_queue.remove(request)
            del endpoint.waiting[request.request_idx]
            if outcome is Outcome.EXPIRED:
                endpoint.counters.requests_expired += 1
            self._log_end(endpoint, request, outcome)
        elif endpoint.assigned.get(request.request_idx) is request and request.worker is not None:
            request.worker.outstanding.withdraw(request.request_idx)
            endpoint.update_load(request.worker)
            del endpoint.assigned[request.request_idx]
            self._log_end(endpoint, request, outcome_of(request))
            self.serve_queue(endpoint, now)

    # -- capacity changes

    def refresh(self, endpoint: Endpoint, now: float) -> None:
        """A worker changed: recompute the routable workers and serve the queue."""
        trust = now - self._started_at <= self._timing.memo_trust_seconds
        endpoint.refresh(now, trust_memo=trust)
        self.serve_queue(endpoint, now)

    def serve_queue(self, endpoint: Endpoint, now: float) -> None:
        """Assign queued requests in order, as long as workers can take them."""
        while endpoint.request_queue.held_count and self._serve_next(endpoint, now):
            pass

    def _serve_next(self, endpoint: Endpoint, now: float) -> bool:
        """Whether a request left the queue."""
        for skipped, request in enumerate(endpoint.request_queue.in_service_order(endpoint.late_cutoff(now))):
            wake = request.wake
            if self._refuse(endpoint, request, now):
                if wake is not None:
                    wake(False)
                return True
            if self._assign(endpoint, request, now):
                if wake is not None:
                    wake(True)
                return True
            if not (request.avoid or endpoint.broken_requests) or skipped >= AVOIDING_SCAN_MAX:
                return False
        return False

    def request_finished(
        self,
        endpoint: Endpoint,
        worker: KnownWorker,
        request_idx: int,
        *,
        success: bool,
        now: float,
        busy_seconds: float = 0.0,
        queued_seconds: float = 0.0,
        first_byte_seconds: float = 0.0,
        status: str = "",
        fingerprint: str = "",
        earlier: bool = False,
    ) -> bool:
        """Handle a worker's report that a request ended; False if this engine never assigned it.

        Args:
            busy_seconds: how long the worker was busy with the request; 0: not reported.
            queued_seconds: how long it was in the worker's queue before.
            first_byte_seconds: from its arrival at the worker to the answer's first bytes; 0: not reported.
            status: the worker's word for how the request ended.
            fingerprint: the request's, if the model failed with it; official clients send none.
            earlier: the report is about an earlier process of the worker, so it says nothing about the current one.
        """
        request = endpoint.assigned.get(request_idx)
        if earlier and (request is None or not worker.started_after(request.assigned_at)):
            return False  # meanwhile assigned to the current process
        known = worker.outstanding.finish(request_idx)
        endpoint.update_load(worker)
        endpoint.metrics_batcher.record_activity(now)
        if fingerprint:
            identify(endpoint, request or endpoint.waiting.get(request_idx), fingerprint)
        if request is None or request.worker is not worker:
            harmless = status == _REJECTED or (success and status != _CANCELLED)
            if finish_left(endpoint, worker, request_idx, harmless=harmless, now=now):
                self.serve_queue(endpoint, now)
            return known
        if status == _REJECTED:
            pass  # it never reached the model
        elif success and status != _CANCELLED:
            endpoint.broken_requests.remove_served(request.key)
            if worker.trusted_perf > 0:
                seconds = request.cost / worker.trusted_perf
                endpoint.stats.gpu_dollars_used += worker.listing.price * seconds / 3600
        else:
            record_failed_request(endpoint, worker, request, now)
        request.finished = True
        request.succeeded = success
        request.took_s = now - request.assigned_at
        endpoint.stats.end(
            ended_request(
                request,
                status.lower() if status in _NO_RESULT else outcome_of(request),
                busy_seconds=busy_seconds,
                queued_seconds=queued_seconds,
                first_byte_seconds=first_byte_seconds,
            )
        )
        request.assigned_at = now
        endpoint.finished[request_idx] = endpoint.assigned.pop(request_idx)
        if success and not earlier:
            worker.suspicion.record_success()
            if worker.report.end_report_seconds > 0:
                endpoint.service_times.learn(request.cost, worker.trusted_perf, busy_seconds)
        return True

    def signal_if_drained(self, endpoint: Endpoint, worker: KnownWorker, now: float) -> None:
        """Signal once, at once, that a draining worker is empty."""
        if worker.is_drained and not worker.drain_signalled:
            worker.drain_signalled = True
            self._signals.signal(endpoint, CAUSE_DRAINED, now)

    def sweep(self, endpoint: Endpoint, now: float) -> None:
        """Once a second: expire requests and tickets, detect broken workers, serve the queue."""
        if now - endpoint.swept_at > DEFAULT_TUNING.sweep_gap_seconds:
            endpoint.sweeping_since = now
        endpoint.swept_at = now
        endpoint.stats.tick(now)
        for request in endpoint.request_queue.expired(now):
            endpoint.request_queue.remove(request)
            endpoint.waiting.pop(request.request_idx, None)
            endpoint.counters.requests_expired += 1
            self._log_end(endpoint, request, Outcome.EXPIRED)
        for worker in list(endpoint.workers.values()):
            endpoint.counters.tickets_expired += worker.outstanding.expire(now)
            unlisted_seconds = 0.0 if worker.listed else now - worker.report.reported_at
            if unlisted_seconds > self._timing.report_fresh_seconds * 2:
                del endpoint.workers[worker.launch_id]
            if detect_break(endpoint, worker, self._timing, now):
                self.serve_queue(endpoint, now)
            self.signal_if_drained(endpoint, worker, now)
            if worker.contradicts_workflow:
                endpoint.metrics_batcher.mark_changed()
        for record, seconds in (
            (endpoint.assigned, DEFAULT_TUNING.routed_memory_seconds),
            (endpoint.finished, DEFAULT_TUNING.routed_ended_memory_seconds),
        ):
            for request in forget_oldest(record, now - seconds, self._limits.requests_known_max):
                self._log_end(endpoint, request, outcome_of(request))
        if any(worker.holds and worker.is_fresh(now, self._timing) for worker in endpoint.workers.values()):
            endpoint.metrics_batcher.record_activity(now)
        self.refresh(endpoint, now)
        if endpoint.request_queue:
            self._signals.signal_backlog(endpoint, now)
        else:
            endpoint.escalation.reset_backlog()

    def log_unfinished(self, endpoint: Endpoint) -> None:
        """The endpoint is gone or the engine stops: record the requests that have not ended as they are."""
        for request in (*endpoint.waiting.values(), *endpoint.assigned.values()):
            self._log_end(endpoint, request, Outcome.CUT_OFF)
        for request in endpoint.finished.values():
            self._log_end(endpoint, request, outcome_of(request))
        endpoint.assigned.clear()
        endpoint.finished.clear()

    # -- requests

    def _log_end(self, endpoint: Endpoint, request: QueuedRequest, outcome: Outcome) -> None:
        if not request.finished:
            endpoint.stats.end(ended_request(request, outcome))
        if request.account is not None and request.waited_s is None and request.worker is None:
            request.account.give_back(request.cost)  # it never got a worker
        if self._on_ended is not None:
            self._on_ended(endpoint.name, request, outcome)

    def _known(self, endpoint: Endpoint, asked: RoutedCall, now: float) -> QueuedRequest | None:
        request_idx = asked.request_idx
        request = endpoint.waiting.get(request_idx)
        if request is not None:
            request.seen_at = now
            request.replay_timeout = asked.replay_timeout
            return request
        request = endpoint.assigned.pop(request_idx, None) or endpoint.finished.pop(request_idx, None)
        if request is None:
            return None
        self._reroute(endpoint, request, now, unread=asked.unread)
        request.replay_timeout = asked.replay_timeout
        return request

    def _arrive(
        self, endpoint: Endpoint, asked: RoutedCall, now: float, account: ClientKeyAccount | None
    ) -> QueuedRequest:
        request_idx = asked.request_idx
        if not request_idx:
            request_idx = self._draw()
            while request_idx in endpoint.waiting or request_idx in endpoint.assigned:
                request_idx = self._draw()
            endpoint.metrics_batcher.record_arrival(asked.cost, now)
            endpoint.stats.arrive(asked.cost)
        # An unknown index was drawn by another engine, or by this one before a restart: queue the request as new.
        request = QueuedRequest(request_idx, asked.cost, now, asked.replay_timeout, asked.fingerprint)
        request.counted_elsewhere = asked.request_idx != 0
        request.affinity = affinity_point(asked.affinity)
        if account is not None:
            request.account, request.priority_class = account, account.priority_class
        if asked.failed_url:
            request.avoid = frozenset(
                w.launch_id for w in endpoint.workers.values() if w.route_url == asked.failed_url
            )
        return request

    def _enqueue(self, endpoint: Endpoint, request: QueuedRequest) -> None:
        endpoint.waiting[request.request_idx] = request
        endpoint.request_queue.add(request)

    def _turn_away(self, endpoint: Endpoint, request: QueuedRequest) -> None:
        """The queue is full: this request is not kept."""
        wake = request.wake
        endpoint.request_queue.remove(request)
        endpoint.waiting.pop(request.request_idx, None)
        request.turned_away = True
        if wake is not None:
            wake(False)
        self._log_end(endpoint, request, Outcome.TURNED_AWAY)

    def _reroute(self, endpoint: Endpoint, request: QueuedRequest, now: float, *, unread: bool) -> None:
        """The client asks again for an assigned request: the worker failed it."""
        endpoint.counters.reroutes += 1
        worker, request.worker = request.worker, None
        if worker is not None:
            worker.outstanding.withdraw(request.request_idx)
            endpoint.update_load(worker)
            request.avoid |= {worker.launch_id}
            record_left(endpoint, worker, request, now, unread=unread)
            if not request.finished and not worker.started_after(request.assigned_at):
                self._record_failure(endpoint, worker, now)
        request.finished = request.succeeded = False
        request.took_s = None
        if now - request.rerouted_at < DEFAULT_TUNING.reroute_pause_seconds:
            request.paused_until = now + DEFAULT_TUNING.reroute_pause_seconds
        request.rerouted_at = request.seen_at = now
        self._enqueue(endpoint, request)

    def _record_failed_url(self, endpoint: Endpoint, asked: RoutedCall, now: float) -> None:
        request = endpoint.assigned.get(asked.request_idx) or endpoint.finished.get(asked.request_idx)
        for worker in list(endpoint.workers.values()):
            if worker.route_url != asked.failed_url or worker.suspicion.since is not None:
                continue
            if (
                request is None
                or request.worker is not worker
                or not worker.started_after(request.assigned_at)
            ):
                self._record_failure(endpoint, worker, now)

    def _record_failure(self, endpoint: Endpoint, worker: KnownWorker, now: float) -> None:
        worker.suspicion.record_failure(now)
        self.refresh(endpoint, now)
        self._signals.signal(endpoint, CAUSE_SUSPECT, now)

    def _assign(self, endpoint: Endpoint, request: QueuedRequest, now: float) -> bool:
        """Assign the best worker; False if none can take the request now."""
        if request.break_suspect is not None:
            return False
        record = endpoint.broken_requests.get(request.key, now) if endpoint.broken_requests else None
        if record is not None:
            if is_retried(endpoint, record.retry, request):
                return False
            request.avoid |= record.launch_ids
        chosen = choose(
            endpoint.candidates,
            request.cost,
            max_queue_time=endpoint.config.max_queue_time,
            avoid=request.avoid,
            sequence=endpoint.counters.routes_given,
            now=now,
            prefetch=endpoint.prefetch,
            cost_ratio=endpoint.service_times.mean_ratio,
            owners=owners(endpoint.candidates, request.affinity, request.avoid),
        )
        if not isinstance(chosen, Choice):
            if isinstance(chosen, AllBusy):
                self._on_later(endpoint, chosen.retry_seconds)
            return False
        worker = endpoint.workers[chosen.candidate.launch_id]
        if record is not None:
            record.retry = request
        if endpoint.waiting.pop(request.request_idx, None) is not None:
            endpoint.request_queue.serve(request, endpoint.late_cutoff(now))
        request.worker, request.assigned_at, request.reqnum = worker, now, self._draw()
        if request.waited_s is None:
            request.waited_s = now - request.arrived_at
            endpoint.stats.waited.observe(request.waited_s, request.request_idx)
        if request.account is not None:
            request.dollars = _dollars(worker, request.cost)
            if request.account.spend(request.dollars, now):
                endpoint.metrics_batcher.mark_changed()
        endpoint.assigned[request.request_idx] = request
        if len(endpoint.assigned) > self._limits.requests_known_max:
            self._log_end(endpoint, endpoint.assigned.popitem(last=False)[1], Outcome.UNKNOWN)
        worker.outstanding.issue(request.request_idx, request.cost, now=now, expires_at=now + TICKET_SECONDS)
        endpoint.update_load(worker)
        self._signals.signal_queue_time(endpoint, now)
        return True

    # -- requests that break workers

    def worker_broke(
        self,
        endpoint: Endpoint,
        worker: KnownWorker,
        held: Collection[int],
        cause: str,
        now: float,
        *,
        reports_ends: bool = False,
    ) -> None:
        """A worker broke while it held these requests: each is retried once, on another worker.

        Args:
            reports_ends: see `record_break`.
        """
        record_break(endpoint, worker, held, cause, now, reports_ends=reports_ends)
        self.serve_queue(endpoint, now)

    def _refused_copy(self, endpoint: Endpoint, asked: RoutedCall, now: float) -> QueuedRequest | None:
        """A new copy of a refused request; it is not counted as an arrival."""
        if not asked.fingerprint or not endpoint.broken_requests:
            return None
        record = endpoint.broken_requests.get(asked.fingerprint, now)
        if record is None or not record.is_refused:
            return None
        request = QueuedRequest(asked.request_idx or self._draw(), asked.cost, now, 0.0, asked.fingerprint)
        request.refusal = record.sentence
        return request

    def _refuse(self, endpoint: Endpoint, request: QueuedRequest, now: float) -> bool:
        """Whether the request is refused because two workers broke with it; it leaves the queue then."""
        if not endpoint.broken_requests and request.break_suspect is None:
            return False
        settle_suspect(endpoint, request, now)
        record = endpoint.broken_requests.get(request.key, now)
        if record is None or not record.is_refused:
            return False
        request.refusal = record.sentence
        if endpoint.waiting.pop(request.request_idx, None) is not None:
            endpoint.request_queue.remove(request)
        self._log_end(endpoint, request, Outcome.FAILED)
        return True


def _dollars(worker: KnownWorker, cost: float) -> float:
    """The cost of the request: its time on the worker by its declared cost, at the worker's price."""
    return cost / worker.trusted_perf * worker.listing.price / 3600.0 if worker.trusted_perf > 0 else 0.0
