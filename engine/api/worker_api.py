"""Calls of workers: status reports, finished requests, and the public key."""

import ipaddress
import re
import time
from typing import NamedTuple, Self
from urllib.parse import urlsplit

import msgspec
import structlog

from engine.api.keys import same_key
from engine.api.parsing import parse
from engine.engine import Engine
from engine.http.calls import Call
from engine.openapi import live_shapes
from engine.openapi.declarations import ok, text
from engine.routing.endpoint import Endpoint
from engine.routing.worker import KnownWorker
from engine.settings import Timing
from stoker_wire.errors.problem import Problem
from stoker_wire.http.openapi import Done, handles
from stoker_wire.http1.request import Request
from stoker_wire.http1.response_cycle import ResponseCycle
from stoker_wire.security.token import WorkerIdentity, read_worker_token
from stoker_wire.worker_status import FinishedRequests, WorkerStatus

log = structlog.get_logger("engine.api.worker_api")

_URL = re.compile(
    r"https?://(?:[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252})|\[[0-9A-Fa-f:.]{2,45}\])(?::([0-9]{1,5}))?"
)
_PORT_MAX = 65_535
_LOAD_MAX = 1e12
_SECONDS_MAX = 1e9
_COUNT_MAX = 1_000_000_000
_ID_MAX = 2**63 - 1
_TOKEN_CHARS_MAX = 200

LAUNCH_PATH = r"/w/{launch:[0-9a-f]{1,64}}/{sealed:[A-Za-z0-9_-]{1,512}}"
_OWN_PATH = re.compile(rb"/w/([0-9a-f]{1,64})/([A-Za-z0-9_-]{1,512})(/[a-z_]+/)")
_SUCCESS = b'{"success":true}'

_METADATA = frozenset(map(ipaddress.ip_address, ("100.100.100.200", "192.0.0.192", "fd00:ec2::254")))
"""Metadata services of clouds that hand out credentials; 169.254.169.254 is covered as link-local."""
_BROADCAST = ipaddress.ip_address("255.255.255.255")

CAUSE_LOADED = "a worker is ready"
CAUSE_LEAVES = "a worker drains without an order"
CAUSE_ERROR = "a worker reports an error"
CAUSE_RUNS = "a worker runs although it was ordered to stop"


class _Routability(NamedTuple):
    """The values of a worker on which routing depends; a change needs a refresh of the candidates."""

    ready: bool
    url: str
    perf: float
    draining: bool
    suspect_since: float | None

    @classmethod
    def of(cls, worker: KnownWorker, now: float, timing: Timing) -> Self:
        report = worker.report
        ready = worker.reports_ready(now, timing)
        return cls(ready, report.url, report.perf, report.draining, worker.suspicion.since)


class WorkerApi:
    """Authenticates every report by the launch's token and rejects implausible values.

    Each call exists on the deployment's path and on each launch's own path (`activities.signing`).
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.calls = {
            (b"POST", b"/worker_status/"): self.worker_status,
            (b"POST", b"/delete_requests/"): self.delete_requests,
            (b"GET", b"/pubkey/"): self.pubkey,
        }

    def call_on_own_path(self, request: Request) -> Call | None:
        """The call of a path that was issued to one launch."""
        match = _OWN_PATH.fullmatch(request.path)
        return None if match is None else self.calls.get((request.method, match[3]))

    @handles(
        "POST /worker_status/",
        f"POST {LAUNCH_PATH}/worker_status/",
        tag="workers",
        body=WorkerStatus,
        replies=ok(Done),
        refuses=(400, 401, 403, 404, 408, 413, 429, 503),
    )
    def worker_status(self, request: Request, cycle: ResponseCycle) -> None:
        """Apply a worker's status report."""
        status = parse(WorkerStatus, request.body)
        endpoint, worker = self._authenticate(status.mtoken, status.id)
        sealed = self._sealed(request, worker)
        url = checked_url(status.url)
        if not worker.listing.allows(url):
            message = (
                f"url must be at the address that the marketplace lists, {worker.listing.address}, not {url}"
            )
            raise Problem(403, "wrong_address", message)
        if not worker.listing.address:
            _check_unconfirmed(url)
        _check_figures(status)
        worker.sealed_key = sealed
        self._apply_report(endpoint, worker, status, url)
        cycle.respond(200, _SUCCESS)

    @handles(
        "POST /delete_requests/",
        f"POST {LAUNCH_PATH}/delete_requests/",
        tag="workers",
        body=FinishedRequests,
        replies=ok(live_shapes.Closed),
        refuses=(400, 401, 403, 404, 408, 413, 429, 503),
    )
    def delete_requests(self, request: Request, cycle: ResponseCycle) -> None:
        """Apply a worker's report of finished requests."""
        ended = parse(FinishedRequests, request.body)
        endpoint, worker = self._authenticate(ended.mtoken, ended.worker_id)
        self._sealed(request, worker)
        now = time.time()
        dispatcher = self._engine.dispatcher
        known = sum(
            dispatcher.request_finished(
                endpoint,
                worker,
                item.request_idx,
                success=item.success,
                now=now,
                busy_seconds=_between(item.work_started_at, item.work_completed_at),
                queued_seconds=_between(item.entered_queue_at, item.work_started_at),
                first_byte_seconds=_between(item.entered_queue_at, item.work_first_byte_at),
                status=item.status,
                fingerprint=item.fingerprint,
                earlier=worker.process.has_ended(ended.incarnation),
            )
            for item in ended.requests
        )
        if worker.listed and now < worker.suspicion.excluded_until:
            dispatcher.refresh(endpoint, now)
        else:
            dispatcher.serve_queue(endpoint, now)
        dispatcher.signal_if_drained(endpoint, worker, now)
        cycle.respond(200, msgspec.json.encode({"success": True, "known": known}))

    @handles(
        "GET /pubkey/",
        f"GET {LAUNCH_PATH}/pubkey/",
        tag="workers",
        replies=text("text/plain", "The public key, PEM"),
        refuses=(404,),
    )
    def pubkey(self, request: Request, cycle: ResponseCycle) -> None:
        """The public key that verifies route signatures; on a launch's own path, the launch's key."""
        launch_id, sealed = _own_path(request)
        tickets = self._engine.ticket_issuer
        pem = tickets.public_key_of(launch_id, sealed) if sealed else tickets.public_key_pem
        if pem is None:
            raise no_such_path()
        cycle.respond(200, pem, content_type=b"text/plain")

    def _sealed(self, request: Request, worker: KnownWorker) -> str:
        """The sealed signing key in the report's path; empty on the deployment's path.

        Raises:
            Problem: 403, the path belongs to another launch; 404, it was not issued by this deployment.
        """
        launch_id, sealed = _own_path(request)
        if not sealed or same_key(sealed.encode(), worker.sealed_key):
            return sealed
        if launch_id != worker.launch_id:
            message = "this path belongs to another launch; report to REPORT_ADDR unchanged"
            raise Problem(403, "wrong_path", message)
        if self._engine.ticket_issuer.public_key_of(worker.launch_id, sealed) is None:
            raise no_such_path()
        return sealed

    def _authenticate(self, token: str, instance_id: int) -> tuple[Endpoint, KnownWorker]:
        identity, secret = self._identity(token)
        if identity is None:
            raise Problem(
                401,
                "bad_worker_token",
                "mtoken was not issued by this deployment; send MASTER_TOKEN unchanged",
            )
        endpoint = self._engine.directory.with_id(identity.endpoint_id)
        if endpoint is None:
            if not self._engine.endpoint_watcher.has_read_all:
                raise Problem(
                    503,
                    "starting",
                    "the engine has not read its endpoints yet; report again",
                    headers={"Retry-After": "2"},
                )
            raise Problem(
                404,
                "no_such_endpoint",
                f"endpoint {identity.endpoint_id} does not exist; this worker is no longer needed",
            )
        if not 0 <= instance_id <= _ID_MAX:
            raise Problem(400, "invalid_args", "the instance id must be between 0 and 2^63 - 1")
        worker = endpoint.worker(identity.launch_id)
        if worker is None:
            raise Problem(
                429,
                "too_many_unlisted",
                "too many workers report that the endpoint's memo does not list; retry later",
                headers={"Retry-After": "5"},
            )
        if worker.instance_id and worker.instance_id != instance_id:
            raise Problem(
                403,
                "wrong_instance",
                f"this token belongs to instance {worker.instance_id}, not to {instance_id}",
            )
        worker.token_secret = secret
        return endpoint, worker

    def _identity(self, token: str) -> tuple[WorkerIdentity | None, bytes | None]:
        """The identity in the token and the secret that it was made with."""
        if len(token) < _TOKEN_CHARS_MAX:
            for secret in self._engine.settings.secrets:
                if (identity := read_worker_token(secret, token)) is not None:
                    return identity, secret
        return None, None

    def _apply_report(self, endpoint: Endpoint, worker: KnownWorker, status: WorkerStatus, url: str) -> None:
        now = time.time()
        timing = self._engine.settings.timing
        if worker.is_late(status, now):
            log.info(
                "late_report_ignored",
                endpoint=endpoint.name,
                worker=worker.launch_id,
                incarnation=status.process,
                error=status.error_msg[:200],
            )
            return
        before = _Routability.of(worker, now, timing)
        error_before, process_before, silent_before = (
            worker.report.error,
            worker.process.id,
            worker.report.reported_at <= 0,
        )
        broke_by = status.error_msg if not error_before else ""
        if not broke_by and worker.has_restarted(status):
            broke_by = "its process restarted"
        held = worker.outstanding.requests if broke_by else set()
        worker.apply_report(status, url, now)
        endpoint.served.hear(worker.launch_id, status, endpoint.workers)
        if broke_by:
            own = not worker.is_official and broke_by == status.error_msg
            self._engine.dispatcher.worker_broke(endpoint, worker, held, broke_by, now, reports_ends=own)
        endpoint.counters.reports += 1
        after = _Routability.of(worker, now, timing)
        if after.ready and not before.ready:
            log.info("worker_ready", endpoint=endpoint.name, worker=worker.launch_id, perf=worker.report.perf)
            if not worker.matches_memo:
                endpoint.metrics_batcher.request_urgent(CAUSE_LOADED, now)
        if worker.suspicion.leaves_unordered and before.suspect_since is None:
            log.warning("worker_drains_without_order", endpoint=endpoint.name, worker=worker.launch_id)
            endpoint.metrics_batcher.request_urgent(CAUSE_LEAVES, now)
        if silent_before or worker.process.id != process_before:
            self._signal_process(endpoint, worker, process_before, now)
        if worker.report.error and worker.report.error != error_before:
            log.warning(
                "worker_error",
                endpoint=endpoint.name,
                worker=worker.launch_id,
                error=worker.report.error[:200],
            )
            endpoint.metrics_batcher.request_urgent(CAUSE_ERROR, now)
        if after != before or error_before != worker.report.error:
            unchanged = (after.draining, after.suspect_since) == (before.draining, before.suspect_since)
            if not (worker.matches_memo and unchanged):
                endpoint.metrics_batcher.mark_changed()
            self._engine.dispatcher.refresh(endpoint, now)
        else:
            endpoint.update_load(worker)
            self._engine.dispatcher.serve_queue(endpoint, now)
        self._engine.dispatcher.signal_if_drained(endpoint, worker, now)
        if endpoint.metrics_batcher.urgent_due_at() is not None:
            self._engine.signal_sender.flush(endpoint)

    def _signal_process(self, endpoint: Endpoint, worker: KnownWorker, before: str, now: float) -> None:
        """Signal that the process runs although it was ordered to end, or that it replaced another one."""
        if worker.ordered_to_end:
            log.warning("stopped_worker_runs", endpoint=endpoint.name, worker=worker.launch_id)
            endpoint.metrics_batcher.request_urgent(CAUSE_RUNS, now)
        elif before and worker.process.id != before:
            log.warning("worker_restarted", endpoint=endpoint.name, worker=worker.launch_id)
            endpoint.metrics_batcher.mark_changed()


def _own_path(request: Request) -> tuple[str, str]:
    """The launch and the sealed key in the path; empty on the deployment's path."""
    match = _OWN_PATH.fullmatch(request.path)
    return ("", "") if match is None else (match[1].decode(), match[2].decode())


def no_such_path() -> Problem:
    """The refusal of a path that was not issued by this deployment."""
    return Problem(
        404, "no_such_launch", "this path was not issued by this deployment; report to REPORT_ADDR unchanged"
    )


def checked_url(url: str) -> str:
    """The worker's address for route answers: scheme, host and port only.

    Raises:
        Problem: 400; a path, credentials or a query would let a worker redirect clients.
    """
    url = url.removesuffix("/")
    if not url:
        return ""
    url = _bracketed(url)
    match = _URL.fullmatch(url)
    if match is None or int(match[1] or 1) not in range(1, _PORT_MAX + 1) or not _has_valid_ipv6(url):
        raise Problem(
            400, "invalid_url", f"url must be http[s]://host:port and nothing else, not {url[:100]!r}"
        )
    return url


def _bracketed(url: str) -> str:
    """The url with brackets around an IPv6 address: official workers leave them out."""
    scheme, separator, rest = url.partition("://")
    host, colon, port = rest.rpartition(":")
    return f"{scheme}{separator}[{host}]{colon}{port}" if _is_ipv6(host) else url


def _has_valid_ipv6(url: str) -> bool:
    host = url.partition("://")[2]
    return not host.startswith("[") or _is_ipv6(host[1:].partition("]")[0])


def _is_ipv6(host: str) -> bool:
    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        return False
    return True


def _check_unconfirmed(url: str) -> None:
    """Check an address that the marketplace has not published yet, for some seconds after a start.

    Raises:
        Problem: 400; a host name may resolve to anything, and some addresses are reachable for the engine only.
    """
    if not url:
        return
    host = urlsplit(url).hostname or ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        message = "url must contain an IP address until the marketplace lists the instance's address"
        raise Problem(400, "invalid_url", f"{message}, not {host[:100]!r}") from None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    address = mapped or address
    if (
        address.is_link_local
        or address.is_multicast
        or address.is_unspecified
        or address in _METADATA
        or address == _BROADCAST
    ):
        raise Problem(400, "invalid_url", f"url: {host} cannot be the address of a worker")


def _between(began: float | None, ended: float | None) -> float:
    """Seconds by the worker's clock; 0: not reported or implausible."""
    seconds = ended - began if began is not None and ended is not None else 0.0
    return seconds if 0.0 < seconds <= _SECONDS_MAX else 0.0


def _check_figures(status: WorkerStatus) -> None:
    loads = ("cur_load", "new_load", "rej_load", "cur_perf", "max_perf", "running_load")
    for name in loads:
        if getattr(status, name) > _LOAD_MAX:
            raise Problem(
                400, "invalid_args", f"{name}: must be at most {_LOAD_MAX:g} (got {getattr(status, name):g})"
            )
    for name in ("num_requests_working", "queued", "concurrency", "num_requests_recieved"):
        if getattr(status, name) > _COUNT_MAX:
            raise Problem(400, "invalid_args", f"{name}: must be at most {_COUNT_MAX:,}")
    for name in ("loadtime", "running_seconds", "end_report_seconds"):
        if getattr(status, name) > _SECONDS_MAX:
            raise Problem(
                400,
                "invalid_args",
                f"{name}: must be at most {_SECONDS_MAX:g} s (got {getattr(status, name):g})",
            )
