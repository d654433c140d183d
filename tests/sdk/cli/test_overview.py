"""`stoker status`, `top`, `open` and `doctor`."""

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest

from stoker.cli.context import OutageNotice
from stoker.cli.inspect import new_lines
from stoker.cli.overview.findings import Check, Finding, run_checks
from stoker.transport import version
from tests.sdk.peers import json_reply, problem

ROW: dict[str, Any] = {
    "id": 7,
    "name": "llm",
    "state": "active",
    "health": "waiting",
    "fault": "",
    "wait_reason": "no offer matches\x1b[31m the search",
    "stages": {"hot": 1, "booting": 2, "cold": 3, "failed": 0},
    "capacity": {"hot": 60.0, "booting": 0.0, "cold": 0.0},
    "dollars_per_hour": {"hot": 0.1, "booting": 0.2},
    "load_per_second": 12.345,
    "queue_requests": 4,
    "queue_oldest_s": 150.0,
}


def overview(*rows: dict[str, Any], **more: Any) -> dict[str, Any]:
    made = {
        "at": time.time(),
        "version": version(),
        "dashboard_url": "http://127.0.0.1:8090",
        "not_ready": "",
        "endpoints": list(rows),
    }
    return made | more


def answers(peers, body: Any) -> None:
    peers.console_replies["GET", "/api/v0/overview/"] = json_reply(body)


def test_the_status_shows_every_endpoint_with_its_last_decision(peers, stoker):
    answers(peers, overview(ROW))
    shown = stoker("status")
    assert shown.exit_code == 0
    assert "\x1b" not in shown.stdout
    row = next(line for line in shown.stdout.splitlines() if line.startswith("llm"))
    assert row.split() == ["llm", "waiting", "12.35", "60", "1", "2", "3", "4", "2", "min", "0.3"]
    assert "waiting: no offer matches" in shown.stdout
    assert "recruit" in shown.stdout


def test_the_status_as_json_has_the_figures_and_the_decisions(peers, stoker):
    answers(peers, overview(ROW))
    shown = json.loads(stoker("status", "--json").stdout)
    assert shown["endpoints"][0]["health"] == "waiting"
    assert shown["last_decisions"]["llm"]["kind"] == "recruit"


def test_the_status_says_why_nothing_is_rented_although_no_request_waits(peers, stoker):
    answers(
        peers, overview(ROW | {"health": "degraded", "queue_requests": 0, "wait_reason": "a gated model"})
    )
    assert "llm: waiting: a gated model" in stoker("status").stdout
    answers(peers, overview(ROW | {"health": "ok", "queue_requests": 0, "wait_reason": "a boot"}))
    assert "a boot" not in stoker("status").stdout


def test_without_workers_the_reason_is_told(peers, stoker):
    answers(peers, overview(ROW | {"wait_reason": "a gated\x1b model"}))
    peers.console_replies["POST", "/get_endpoint_workers/"] = json_reply([])
    assert stoker("workers", "llm").stderr == "no workers: a gated\\x1b model\n"
    assert json.loads(stoker("workers", "llm", "--json").stdout) == []


def test_the_status_names_an_engine_that_is_not_ready(peers, stoker):
    answers(peers, overview(ROW, not_ready="Temporal has not answered for 40 s"))
    assert "engine: Temporal has not answered for 40 s" in stoker("status").stdout


def test_an_empty_status_names_the_command_that_creates_an_endpoint(peers, stoker):
    answers(peers, overview())
    shown = stoker("status")
    assert (shown.exit_code, shown.stdout) == (0, "")
    assert "stoker endpoints create" in shown.stderr


def test_top_prints_one_object_per_update(peers, stoker):
    answers(peers, overview(ROW))
    lines = stoker("top", "--count", "2", "--interval", "0.2", "--json").stdout.splitlines()
    assert [json.loads(line)["endpoints"][0]["name"] for line in lines] == ["llm", "llm"]


def test_into_a_pipe_top_prints_one_frame_after_another(peers, stoker):
    answers(peers, overview(ROW))
    shown = stoker("top", "--count", "2", "--interval", "0.2").stdout
    assert shown.count("endpoint  health") == 2
    assert shown.endswith("\n")


@pytest.mark.parametrize("command", [["top"], ["watch", "llm"]])
def test_a_live_command_without_an_engine_says_so_soon_and_ends(stoker, monkeypatch, command):
    monkeypatch.setattr("stoker.cli.context.ENGINE_SECONDS_MAX", 0.6)
    monkeypatch.setattr("stoker.cli.context.SILENT_SECONDS_MAX", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    shown = stoker(*command, STOKER_URL=f"http://127.0.0.1:{port}")
    assert shown.exit_code == 1
    first, last = shown.stderr.splitlines()
    assert first.startswith("stoker: the engine does not answer (connection failed")
    assert "has not answered" in last


def test_each_outage_is_said_once(capsys):
    notice = OutageNotice(100.0)
    for seconds in (0.5, 3.0, 5.0, 0.5, 4.0):
        notice(seconds, "connection failed")
    said = capsys.readouterr().err.splitlines()
    assert [line.rpartition("for another ")[2] for line in said] == ["97 s", "96 s"]


def test_open_prints_the_page_of_an_endpoint(peers, stoker):
    answers(peers, overview(ROW))
    assert stoker("open", "llm", "--print").stdout == "http://127.0.0.1:8090/endpoints/7\n"
    assert stoker("open", "--print").stdout == "http://127.0.0.1:8090\n"


def test_open_without_a_dashboard_says_what_to_set(peers, stoker):
    answers(peers, overview(ROW, dashboard_url=""))
    shown = stoker("open")
    assert shown.exit_code == 1
    assert "dashboard.port" in shown.stderr


def findings(shown: Any) -> dict[str, dict[str, Any]]:
    return {row["check"]: row for row in json.loads(shown.stdout)}


def test_a_sound_deployment_passes_every_check(peers, stoker):
    answers(peers, overview(ROW | {"health": "ok", "wait_reason": ""}))
    peers.console_replies["POST", "/api/v0/offers/"] = json_reply({"offers": []})
    peers.console_replies["POST", "/get_endpoint_workers/"] = json_reply(
        [{"id": 9, "status": "idle", "url": peers.worker_url}]
    )
    shown = stoker("doctor", "--json")
    assert {check: row["result"] for check, row in findings(shown).items()} == dict.fromkeys(
        ["engine and key", "clocks", "versions", "Temporal", "marketplace", "endpoint llm", "worker 9"], "ok"
    )
    assert shown.exit_code == 0


def test_every_finding_has_a_remedy(peers, stoker):
    answers(peers, overview(ROW, at=time.time() + 60, version="9.9.9", not_ready="no answer yet"))
    peers.console_replies["POST", "/api/v0/offers/"] = problem(502, "market_refused", "the key is wrong")
    peers.console_replies["POST", "/get_endpoint_workers/"] = json_reply(
        [{"id": 9, "status": "idle", "url": "http://127.0.0.1:1"}]
    )
    shown = stoker("doctor", "--json")
    found = findings(shown)
    assert shown.exit_code == 1
    assert found.pop("engine and key")["result"] == "ok"
    assert {
        check: bool(row["remedy"]) for check, row in found.items() if row["result"] == "failed"
    } == dict.fromkeys(["clocks", "versions", "Temporal", "marketplace", "endpoint llm", "worker 9"], True)


def test_an_engine_that_does_not_answer_is_one_finding_without_retries(peers, stoker):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    shown = stoker("doctor", "--json", STOKER_URL=f"http://127.0.0.1:{port}")
    (found,) = json.loads(shown.stdout)
    assert (shown.exit_code, found["check"], found["result"]) == (1, "engine and key", "failed")
    assert "has not answered (connection failed" in found["found"]


async def test_checks_run_side_by_side_and_a_silent_or_broken_one_does_not_hide_the_others():
    meet = asyncio.Barrier(2)

    async def sound(name: str) -> AsyncIterator[Finding]:
        await meet.wait()  # never ends unless the other check runs at the same time
        yield Finding(name, "ok", "sound")

    async def silent() -> AsyncIterator[Finding]:
        yield Finding("silent", "ok", "begun")
        await asyncio.Event().wait()

    async def broken() -> AsyncIterator[Finding]:
        raise LookupError("a fault of the check itself")
        yield

    checks = [
        Check("silent", silent, "start it"),
        Check("broken", broken, "report it"),
        Check("a", partial(sound, "a"), ""),
        Check("b", partial(sound, "b"), ""),
    ]
    found = [(each.check, each.result) async for each in run_checks(checks, seconds_max=2.0)]
    assert found == [
        ("silent", "ok"), ("silent", "failed"), ("broken", "unknown"), ("a", "ok"), ("b", "ok")
    ]  # fmt: skip


def test_a_wrong_key_is_one_finding(peers, stoker):
    peers.console_replies["GET", "/api/v0/overview/"] = problem(401, "auth_error", "no such key")
    shown = stoker("doctor")
    assert shown.exit_code == 1
    assert shown.stdout.count("FAIL") == 1
    assert "STOKER_API_KEY" in shown.stdout


def test_the_log_of_a_machine_is_printed_without_control_characters(peers, stoker):
    peers.console_replies["POST", "/get_worker_logs/"] = json_reply(
        {"success": True, "live": True, "at": time.time(), "log": "loading\n\x1b[31mout of memory"}
    )
    shown = stoker("logs", "llm", "--worker", "0a1b")
    assert shown.stdout == "loading\n\\x1b[31mout of memory\n"


def test_the_saved_log_of_a_released_machine_says_when_it_was_saved(peers, stoker):
    peers.console_replies["POST", "/get_worker_logs/"] = json_reply(
        {"success": True, "live": False, "at": 1_800_000_000.0, "log": "bye"}
    )
    shown = stoker("logs", "llm", "--worker", "10001", "--follow")
    assert shown.stdout == "bye\n"
    assert "saved at 2027-01-15 08:00:00 UTC" in shown.stderr


LINES = """Traceback of the start
{"event": "listening", "timestamp": "2026-03-02T22:19:59.500Z"}
2026-03-02 22:20:01,123 INFO loads
  30 % of the weights
2026-03-02T22:20:05+00:00 ready"""


@pytest.mark.parametrize(
    ("since", "shown"),
    [
        ("2026-03-02T22:20:00Z", "2026-03-02 22:20:01,123 INFO loads\n  30 % of the weights\n2026-03-02T22:20:05+00:00 ready\n"),
        ("2026-03-02 22:20:05", "2026-03-02T22:20:05+00:00 ready\n"),
        ("2026-03-03", ""),
        ("10m", ""),
    ],
)  # fmt: skip
def test_a_log_is_shown_from_a_time_on(peers, stoker, since, shown):
    log = json_reply({"success": True, "live": True, "at": time.time(), "log": LINES})
    peers.console_replies["POST", "/get_worker_logs/"] = log
    peers.console_replies["POST", "/get_endpoint_logs/"] = json_reply({"info0": LINES, "debug": ""})
    assert stoker("logs", "llm", "--worker", "10001", "--since", since).stdout == shown
    assert stoker("logs", "llm", "--since", since).stdout == shown
    assert json.loads(stoker("logs", "llm", "--since", since, "--json").stdout)["info0"] == shown


def test_a_log_without_times_is_shown_whole_and_a_wrong_time_is_refused(peers, stoker):
    log = json_reply(
        {"success": True, "live": True, "at": time.time(), "log": "one\n2026-13-45 99:99:99 two"}
    )
    peers.console_replies["POST", "/get_worker_logs/"] = log
    assert stoker("logs", "llm", "--worker", "1", "--since", "10m").stdout.endswith("two\n")
    refused = stoker("logs", "llm", "--since", "yesterday")
    assert refused.exit_code == 2
    assert "--since takes 90s, 10m, 2h, 1d or a time in UTC" in " ".join(refused.stderr.split())


def test_following_prints_each_line_once():
    assert new_lines([], ["a", "b"]) == ["a", "b"]
    assert new_lines(["a", "b"], ["a", "b", "c"]) == ["c"]
    assert new_lines(["a", "b", "c"], ["b", "c", "d"]) == ["d"]
    assert new_lines(["a"], ["x", "y"]) == ["x", "y"]
    assert new_lines(["a", "a"], ["a", "a"]) == []


def test_a_worker_without_an_endpoint_is_wrong_use(stoker):
    assert stoker("logs", "--workergroup", "5", "--worker", "1").exit_code == 2
    assert stoker("logs", "llm", "--follow").exit_code == 2
