"""The tables of `endpoints list`, `endpoints show`, `workers` and `costs`."""

import json

import pytest

from stoker.cli.fields import worker_rows
from stoker.management.records import WorkerRecord
from tests.sdk.cli.samples import DECISION, STATUS, WORKER
from tests.sdk.peers import json_reply, problem

ONE = "/api/v0/endptjobs/7/"


def columns(text: str, header: str) -> list[str]:
    """The lines of the table whose header starts with this word, header included."""
    lines = text.splitlines()
    start = next(number for number, line in enumerate(lines) if line.split()[:1] == [header])
    end = next((number for number in range(start, len(lines)) if not lines[number].strip()), len(lines))
    return lines[start:end]


def test_the_list_shows_state_workers_cost_and_last_decision(stoker):
    header, row = stoker("endpoints", "list").stdout.splitlines()
    assert header.split() == ["id", "name", "state", "workers", "$/h", "last", "decision"]
    assert row.split()[:8] == ["7", "llm", "active", "1", "idle,", "2", "stopped", "0.31"]
    assert row.endswith("2025-11-23 13:53:20 recruit: load 42/s [needs] more")


def test_an_endpoint_whose_workflow_does_not_answer_does_not_hide_the_others(peers, stoker):
    peers.endpoint("stuck", 8)
    peers.console_replies["GET", "/api/v0/endptjobs/8/status/"] = problem(
        502, "query_failed", "the query failed"
    )
    peers.console_replies["GET", "/api/v0/endptjobs/8/decisions/"] = json_reply({"decisions": []})
    shown = stoker("endpoints", "list")
    assert shown.exit_code == 0
    _, first, second = shown.stdout.splitlines()
    assert "1 idle, 2 stopped" in first
    assert second.split()[:5] == ["8", "stuck", "active", "-", "-"]
    assert "not available: the query failed" in second


def test_the_json_of_the_list_asks_for_the_records_only(peers, stoker):
    json.loads(stoker("endpoints", "list", "--json").stdout)
    assert [received.path for _, received in peers.console_calls] == ["/api/v0/endptjobs/"]


def test_a_long_reason_is_cut_between_words(peers, stoker):
    reason = "capacity " * 40
    peers.console_replies["GET", ONE + "decisions/"] = json_reply(
        {"decisions": [DECISION | {"reason": reason}]}
    )
    shown = " ".join(stoker("endpoints", "list").stdout.split())
    assert shown.endswith("capacity …")


def test_show_prints_times_units_and_words_instead_of_python_values(peers, stoker):
    peers.endpoint(
        "img",
        8,
        created_at=1763906000.0,
        inactivity_timeout=300.0,
        dollars_per_hour_max=2.0,
        workergroup_ids=[5, 6],
    )
    status = STATUS | {
        "config": {"max_workers": 16},
        "look_again_at": 1763906000.0,
        "targets": STATUS["targets"] | {"queue_seconds": 1e6},
        "learned": {"perf": 719_480_000.0, "boot_seconds": 300.0},
        "under_way": ["create 0a1b", "stop 0a1c"],
    }
    peers.console_replies["GET", "/api/v0/endptjobs/8/status/"] = json_reply(status)
    shown = stoker("endpoints", "show", "img").stdout
    rows = {line.split("  ")[0]: " ".join(line.split("  ")[1:]).strip() for line in shown.splitlines()}
    assert rows["created_at"] == "2025-11-23 13:53:20 UTC"
    assert rows["inactivity_timeout"] == "300 s"
    assert rows["dollars_per_hour_max"] == "2 $/h"
    assert rows["workergroup_ids"] == "5; 6"
    assert rows["hot capacity wanted"] == "90 load/s"
    assert rows["expected queue"] == "no capacity"
    assert rows["workers"] == "1 idle, 2 stopped"
    assert rows["waiting"] == "the budget is used up (until 2025-11-23 13:53:20 UTC)"
    assert rows["look_again_at"] == "2025-11-23 13:53:20 UTC"
    assert rows["learned"] == "perf 719480000, boot_seconds 5 min"
    assert "broken" not in rows
    assert rows["under_way"] == "create 0a1b; stop 0a1c"
    assert not {"{", "}", "[", "'", "e+"} & set(shown)
    assert "e+" not in shown


def test_each_learned_machine_kind_is_a_row_of_its_own(peers, stoker):
    kinds = [{"kind": "1x A", "boot_seconds": 300.0}, {"kind": "1x B", "boot_seconds": 30.0}]
    status = STATUS | {"learned": {"kinds": kinds, "failed_hosts": []}}
    peers.console_replies["GET", ONE + "status/"] = json_reply(status)
    shown = stoker("endpoints", "show", "llm").stdout
    learned = [" ".join(line.split()) for line in shown.splitlines() if line.startswith("learned")]
    assert learned == [
        "learned, kinds kind 1x A, boot_seconds 5 min",
        "learned, kinds kind 1x B, boot_seconds 30 s",
    ]


@pytest.mark.parametrize(
    ("fields", "state", "in_flight"),
    [
        ({"cur_load": 0.0, "reqs_working": 0}, "idle", 0.0),
        ({"cur_load": 0.0, "reqs_working": 0, "cur_load_rolling_avg": 1500.0}, "busy", 1500.0),
        ({"cur_load": 0.0, "reqs_working": 3}, "busy", 0.0),
        ({"draining": True}, "draining", 5.0),
        ({"cur_load": 0.0, "reqs_working": 0, "draining": True}, "draining", 0.0),
        ({"suspect": True, "update_pending": True}, "suspect, update pending", 5.0),
        ({"status": "loading", "draining": True}, "loading, draining", 5.0),
        ({"cur_load_rolling_avg": "much", "draining": "no"}, "busy", 5.0),
    ],
)
def test_a_workers_row_shows_whether_it_drains_and_its_load_in_flight(fields, state, in_flight):
    (row,) = worker_rows([WorkerRecord.model_validate(WORKER | fields)])
    assert (row[1], row[3]) == (state, in_flight)


def test_costs_separate_dollars_from_dollars_per_hour(peers, stoker):
    peers.console_replies["GET", ONE + "costs/"] = json_reply(
        {
            "dollars": 12.5,
            "by_state": {"idle": 10.0, "stopped": 2.0},
            "difference": 0.5,
            "dollars_per_hour": 0.31,
            "by_worker": {"0a1b": 0.31},
            "settled_at": 1763906000.0,
            "workers_rented": 3,
        }
    )
    shown = stoker("costs", "llm").stdout
    spent = columns(shown, "spent")
    assert spent[0].split() == ["spent", "dollars"]
    assert [line.split()[-1] for line in spent[1:]] == ["10", "2", "0.5", "12.5"]
    now = columns(shown, "now")
    assert now[0].split() == ["now", "$/h"]
    assert [line.split()[-1] for line in now[1:]] == ["0.31", "0.31"]
    assert [line.split("  ")[0] for line in columns(shown, "other")[1:]] == [
        "bills last read",
        "workers rented",
    ]
    assert "2025-11-23 13:53:20 UTC" in shown
