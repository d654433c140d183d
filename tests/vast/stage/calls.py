"""Every call of the official protocol, by name. The tests that carry a name determine its result.

A test is marked `@call("route")`. Where stoker differs from the official service, or lacks the call, the mark gives the
reason: `@call("asks-bulk", not_offered="…")`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

SECTIONS: dict[str, dict[str, str]] = {
    "Engine": {
        "route": "`POST /route/`: a worker is chosen",
        "route-wait": "`POST /route/`: no worker yet",
        "route-again": "`POST /route/`: the same `request_idx` again after a failure",
        "worker-status": "`POST /worker_status/`",
        "delete-requests": "`POST /delete_requests/`",
        "pubkey": "`GET /pubkey/`",
        "endpoint-workers": "`POST /get_endpoint_workers/`",
        "group-workers": "`POST /get_autogroup_workers/`, `/get_workergroup_workers/`",
        "endpoint-logs": "`POST /get_endpoint_logs/`",
        "group-logs": "`POST /get_autogroup_logs/`, `/get_workergroup_logs/`",
        "update-workers": "`POST /update_workers/`",
        "update-workers-cancel": "`POST /update_workers/` with `cancel_update`",
        "pyworker-update": "engine to worker: `POST /pyworker/update`",
        "sign-cert": "`POST /api/v0/sign_cert/`, `GET /static/jvastai_root.cer`",
    },
    "Client to worker": {
        "worker-json": "JSON in and out",
        "worker-text": "text out",
        "worker-bytes": "other media out",
        "worker-sse": "server-sent events",
        "worker-jsonl": "JSON lines",
        "worker-retry": "408, 429 and 5xx are retried on another route",
        "worker-4xx": "other 4xx are returned",
        "worker-gone": "a refused or dropped connection is routed again",
        "worker-timeout": "a worker's timeout is routed again",
        "worker-cancel": "a client leaves in mid-stream",
        "session-create": "`POST /session/create`",
        "session-request": "requests in a session",
        "session-get": "`POST /session/get`",
        "session-end": "`POST /session/end`",
        "session-health": "`POST /session/health`",
        "session-expiry": "a session expires: 410",
        "session-on-close": "`on_close_route`",
        "debug-worker": "`VAST_DEBUG_WORKER_URL`",
    },
    "Console": {
        "endpoints-list": "`GET /api/v0/endptjobs/`",
        "endpoint-create": "`POST /api/v0/endptjobs/`",
        "endpoint-show": "`GET /api/v0/endptjobs/{id}/`",
        "endpoint-update": "`PUT /api/v0/endptjobs/{id}/`",
        "endpoint-delete": "`DELETE /api/v0/endptjobs/{id}/`",
        "groups-list": "`GET /api/v0/workergroups/`, `/api/v0/autojobs/`",
        "group-create": "`POST /api/v0/workergroups/`, `/api/v0/autojobs/`",
        "group-update": "`PUT /api/v0/autojobs/{id}/`",
        "group-delete": "`DELETE /api/v0/workergroups/{id}/`, `/api/v0/autojobs/{id}/`",
        "docker-login": "`docker_login_*` of a workergroup",
        "user": "`GET /api/v0/users/current`",
        "errors": "errors: `success`, `error`, `msg`; 401 for a wrong key",
    },
    "Command line": {
        "cli-create-endpoint": "`create endpoint`",
        "cli-show-endpoints": "`show endpoints`",
        "cli-update-endpoint": "`update endpoint`",
        "cli-delete-endpoint": "`delete endpoint`",
        "cli-create-workergroup": "`create workergroup`",
        "cli-show-workergroups": "`show workergroups`",
        "cli-update-workergroup": "`update workergroup`",
        "cli-delete-workergroup": "`delete workergroup`",
        "cli-endpt-logs": "`get endpt-logs`, levels 0 to 3",
        "cli-wrkgrp-logs": "`get wrkgrp-logs`, levels 0 to 3",
        "cli-endpt-workers": "`get endpt-workers`",
        "cli-update-workers": "`update workers`, `--cancel`",
        "cli-search": "`search offers`, `search templates`",
        "cli-instances": "`show instances`, `show instance`",
        "cli-benchmarks": "`run benchmarks`",
    },
    "Marketplace (the host marketplace)": {
        "bundles": "`POST /api/v0/bundles/`",
        "search-asks": "`PUT /api/v0/search/asks/`",
        "asks-create": "`PUT /api/v0/asks/{id}/`",
        "asks-bulk": "`POST /api/v0/asks/bulk/`",
        "launch-instance": "`PUT /api/v0/launch_instance/`",
        "instance-show": "`GET /api/v0/instances/{id}/`",
        "instances-list": "`GET /api/v1/instances/`",
        "instance-state": "`PUT /api/v0/instances/{id}/`: state, label",
        "instances-bulk": "`PUT` and `DELETE /api/v0/instances/`: several at once",
        "instance-destroy": "`DELETE /api/v0/instances/{id}/`",
        "instance-reboot": "`PUT /api/v0/instances/reboot/{id}/`",
        "instance-recycle": "`PUT /api/v0/instances/recycle/{id}/`",
        "instance-template": "`PUT /api/v0/instances/update_template/{id}/`",
        "instance-bid": "`PUT /api/v0/instances/bid_price/{id}/`",
        "instance-logs": "`PUT /api/v0/instances/request_logs/{id}/`",
        "templates": "`GET /api/v0/template/`",
        "benchmarks": "`GET /api/v0/benchmarks`",
    },
}

NAMES = {name for calls in SECTIONS.values() for name in calls}


def call(*names: str, differs: str = "", not_offered: str = "") -> pytest.MarkDecorator:
    """Marks a test with the calls that it covers."""
    unknown = set(names) - NAMES
    if unknown:
        raise ValueError(f"no such call: {', '.join(sorted(unknown))}")
    return pytest.mark.call(names=names, differs=differs, not_offered=not_offered)


@dataclass
class Outcome:
    """The results of one call so far."""

    selected: int = 0
    passed: int = 0
    differs: list[str] = field(default_factory=list)
    not_offered: list[str] = field(default_factory=list)

    @property
    def verdict(self) -> str:
        """The result as the table prints it."""
        if self.not_offered:
            return "not offered: " + "; ".join(self.not_offered)
        if self.differs:
            return "differs: " + "; ".join(self.differs)
        return "works"


class Record:
    """The outcomes of one test run, by call."""

    def __init__(self) -> None:
        self.outcomes: dict[str, Outcome] = {name: Outcome() for name in NAMES}

    def each(self, item: pytest.Item, do: Callable[[Outcome, dict[str, Any]], None]) -> None:
        """For every call that the test carries."""
        for mark in item.iter_markers("call"):
            for name in mark.kwargs["names"]:
                do(self.outcomes[name], mark.kwargs)

    def select(self, item: pytest.Item) -> None:
        """The test will run."""

        def count(outcome: Outcome, said: dict[str, Any]) -> None:
            outcome.selected += 1

        self.each(item, count)

    def passed(self, item: pytest.Item) -> None:
        """The test has passed."""

        def count(outcome: Outcome, said: dict[str, Any]) -> None:
            outcome.passed += 1
            for kind in ("differs", "not_offered"):
                if said[kind] and said[kind] not in getattr(outcome, kind):
                    getattr(outcome, kind).append(said[kind])

        self.each(item, count)


def table(record: Record) -> str:
    """The record as Markdown."""
    lines = [
        "# Compatibility with Vast.ai Serverless, call by call",
        "",
        "Shown by `tests/vast`, which runs the unmodified package `vastai==1.9.1` against a running deployment on the host",
        "marketplace; written by that run (`STOKER_WRITE_TABLE=1 pytest tests/vast`), and held current by it.",
        "*Cases* counts the tests that exercise the call.",
        "",
    ]
    for section, calls in SECTIONS.items():
        lines += [f"## {section}", "", "| call | verdict | cases |", "|---|---|---|"]
        for name, said in calls.items():
            outcome = record.outcomes[name]
            lines.append(f"| {said} | {outcome.verdict} | {outcome.passed} |")
        lines.append("")
    return "\n".join(lines)
