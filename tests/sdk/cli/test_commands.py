"""The `stoker` command: its output for people and scripts, and its exit code."""

import json
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import stoker.cli as stoker_cli
from tests.sdk.cli.samples import ADVICE, DECISION, GROUP, HOSTILE, HOSTS, STATUS, WORKER
from tests.sdk.peers import chunks, json_reply, problem, raw_reply


def sent(peers, method: str, path: str):
    return [seen.body for called, seen in peers.console_calls if (called, seen.path) == (method, path)]


def test_endpoints_are_listed_without_their_keys(peers, stoker):
    shown = stoker("endpoints", "list")
    assert shown.exit_code == 0
    assert "llm" in shown.stdout
    (record,) = json.loads(stoker("endpoints", "list", "--json").stdout)
    assert (record["id"], record["endpoint_name"], record["api_key"]) == (7, "llm", "(hidden)")
    assert peers.endpoint_key not in shown.output
    assert peers.endpoint_key in stoker("endpoints", "list", "--show-key").stdout
    assert (
        json.loads(stoker("endpoints", "list", "--json", "--show-key").stdout)[0]["api_key"]
        == peers.endpoint_key
    )


@pytest.mark.parametrize("filters", ["{num_gpus: 1}", "[]", "gpu_ram>=24", "null"])
def test_filters_that_no_search_could_read_make_no_template(peers, stoker, filters):
    shown = stoker("templates", "create", "mine", "--extra-filters", filters, COLUMNS="120")
    assert shown.exit_code == 2
    assert "expected a JSON object" in shown.stderr
    assert "Traceback" not in shown.output
    assert sent(peers, "POST", "/api/v0/template/") == []


@pytest.mark.parametrize("action", ["drain", "resume", "reboot", "destroy"])
def test_a_worker_is_drained_resumed_rebooted_and_destroyed(peers, stoker, action):
    shown = stoker("workers", action, "llm", "0a1b", *(["--yes"] if action == "destroy" else []))
    assert shown.exit_code == 0, shown.output
    assert shown.stdout.startswith("worker 0a1b2c3d4e5f: ")
    assert sent(peers, "POST", "/change_worker/") == [{"id": 7, "worker": "0a1b", "action": action}]


def test_a_worker_is_shown_with_its_error_and_the_phases_of_its_boot(peers, stoker):
    shown = stoker("workers", "show", "llm", "41", COLUMNS="120")
    assert shown.exit_code == 0, shown.output
    assert "the repository is gated: accept its licence" in shown.stdout
    for line in ("downloads the model", "30 s", "failed"):
        assert line in shown.stdout
    record = json.loads(stoker("workers", "show", "llm", "41", "--json").stdout)
    assert [each["phase"] for each in record["boot"]] == ["pending", "download", "error"]
    assert sent(peers, "POST", "/get_worker/") == [{"id": 7, "worker": "41"}] * 2


def test_the_list_of_workers_names_the_cause_of_a_failed_boot(peers, stoker):
    failed = WORKER | {"status": "error", "error_msg": "the disk is full: rent with a larger disk"}
    peers.console_replies["POST", "/get_endpoint_workers/"] = json_reply([failed])
    assert "the disk is full: rent with a larger disk" in stoker("workers", "llm", COLUMNS="200").stdout


def test_a_worker_is_destroyed_only_after_a_confirmation(peers, stoker):
    refused = stoker("workers", "destroy", "llm", "41", stdin="n\n")
    assert refused.exit_code == 1
    assert "Destroy worker 41 of endpoint llm?" in refused.stderr
    assert sent(peers, "POST", "/change_worker/") == []


def test_an_empty_list_names_the_command_that_creates_an_endpoint(peers, stoker):
    peers.records.clear()
    shown = stoker("endpoints", "list")
    assert (shown.exit_code, shown.stdout) == (0, "")
    assert "stoker endpoints create" in shown.stderr
    assert json.loads(stoker("endpoints", "list", "--json").stdout) == []


def test_an_endpoint_is_created_with_the_options_given(peers, stoker):
    async def create(request, body):
        number = len(peers.records) + 8
        peers.endpoint(body["endpoint_name"], number)
        return await json_reply({"success": True, "result": number})(request, body)

    peers.console_replies["POST", "/api/v0/endptjobs/"] = create
    shown = stoker(
        "endpoints",
        "create",
        "new",
        "--max-workers",
        "3",
        "--cold-workers",
        "0",
        "--budget",
        "2.5",
        "--state",
        "stopped",
    )
    assert (shown.exit_code, shown.stdout) == (0, "created endpoint new, id 9\n")
    assert sent(peers, "POST", "/api/v0/endptjobs/") == [
        {
            "endpoint_name": "new",
            "max_workers": 3,
            "cold_workers": 0,
            "dollars_per_hour_max": 2.5,
            "endpoint_state": "stopped",
        }
    ]
    made = json.loads(stoker("endpoints", "create", "other", "--json").stdout)
    assert made["endpoint_name"] == "other"
    assert made["api_key"] == "(hidden)"


def test_an_endpoint_is_shown_with_its_state(peers, stoker):
    shown = stoker("endpoints", "show", "llm")
    assert shown.exit_code == 0
    assert "42 load/s" in shown.stdout
    assert peers.endpoint_key not in shown.output
    assert json.loads(stoker("endpoints", "show", "7", "--json").stdout)["status"]["state"] == "active"


def test_an_endpoint_is_changed_and_deleted(peers, stoker):
    assert (
        stoker("endpoints", "update", "llm", "--max-workers", "2").stdout == "endpoint llm: max_workers=2\n"
    )
    assert sent(peers, "PUT", "/api/v0/endptjobs/7/") == [{"endptjob_id": 7, "max_workers": 2}]
    assert stoker("endpoints", "delete", "llm", stdin="n\n").exit_code == 1
    assert sent(peers, "DELETE", "/api/v0/endptjobs/7/") == []
    assert stoker("endpoints", "delete", "llm", stdin="y\n").exit_code == 0
    assert json.loads(stoker("endpoints", "delete", "llm", "--yes", "--json").stdout) == {"success": True}
    assert len(sent(peers, "DELETE", "/api/v0/endptjobs/7/")) == 2


@pytest.mark.parametrize("name", ["4090", "-1", "--help", "true"])
def test_names_that_look_like_ids_or_options_work_in_every_command(peers, stoker, name):
    peers.endpoint(name, 8)
    ok = json_reply({"success": True})
    peers.console_replies["GET", "/api/v0/endptjobs/8/status/"] = json_reply(STATUS)
    peers.console_replies["PUT", "/api/v0/endptjobs/8/"] = peers.console_replies[
        "DELETE", "/api/v0/endptjobs/8/"
    ] = ok
    for words in (["show"], ["update", "--max-workers", "3"], ["delete", "--yes"]):
        done = stoker("endpoints", *words, "--", name)
        assert done.exit_code == 0, done.output
    assert len(sent(peers, "PUT", "/api/v0/endptjobs/8/")) == 1
    assert len(sent(peers, "DELETE", "/api/v0/endptjobs/8/")) == 1


def test_a_rotated_key_is_printed_only_with_show_key(peers, stoker):
    peers.console_replies["POST", "/api/v0/endptjobs/7/rotate_key/"] = json_reply(
        {"success": True, "api_key": "sk-ep-7-2-new"}
    )
    assert stoker("endpoints", "rotate-key", "llm").stdout == "endpoint llm has a new key: (hidden)\n"
    shown = stoker("endpoints", "rotate-key", "llm", "--show-key", "--json")
    assert json.loads(shown.stdout)["api_key"] == "sk-ep-7-2-new"


def test_workergroups_are_managed(peers, stoker):
    assert "abc" in stoker("workergroups", "list").stdout
    assert json.loads(stoker("workergroups", "list", "-e", "llm", "--json").stdout)[0]["id"] == 5
    assert "no workergroups" in stoker("workergroups", "list", "-e", "other").stderr
    made = stoker(
        "workergroups", "create", "llm", "--template-hash", "abc", "--search", "x=1", "--max-workers", "4"
    )
    assert made.stdout == "created workergroup 5 of endpoint llm\n"
    assert sent(peers, "POST", "/api/v0/workergroups/") == [
        {"search_params": "x=1", "endpoint_name": "llm", "template_hash": "abc", "max_workers": 4}
    ]
    assert "abc" in stoker("workergroups", "show", "5").stdout
    assert stoker("workergroups", "update", "5", "--search", "x=2").exit_code == 0
    assert sent(peers, "PUT", "/api/v0/workergroups/5/") == [{"search_params": "x=2"}]
    assert stoker("workergroups", "roll", "5").stdout == "workergroup 5: 2 workers to update\n"
    assert stoker("workergroups", "delete", "5", "--yes").exit_code == 0


def test_workers_logs_decisions_and_costs_are_shown(stoker):
    assert "H100" in stoker("workers", "llm").stdout
    assert json.loads(stoker("workers", "--workergroup", "5", "--json").stdout)[0]["id"] == 41
    assert stoker("logs", "llm").stdout == "one\ntwo\n"
    assert stoker("logs", "llm", "--level", "3").stdout == "d\n"
    assert stoker("logs", "-g", "5").stdout == "of the group\n"
    assert json.loads(stoker("logs", "llm", "--tail", "1", "--json").stdout)["debug"] == "d\n"
    decisions = stoker("decisions", "llm").stdout
    assert "load 42/s [needs] more" in decisions
    assert "2025-11-23" in decisions
    assert json.loads(stoker("decisions", "7", "--json").stdout) == [DECISION]
    costs = stoker("costs", "llm").stdout
    assert "1.25" in costs
    assert "worker 0a1b" in costs


def test_a_second_config_is_advised_and_shown_beside_the_live_one(peers, stoker):
    shown = stoker("advise", "llm", "--target-util", "0.8", "--budget", "2", "--error-budget", "0.02")
    assert shown.exit_code == 0, shown.output
    assert sent(peers, "PUT", "/api/v0/endptjobs/7/advice/") == [
        {"target_util": 0.8, "dollars_per_hour_max": 2.0, "error_budget": 0.02}
    ]
    assert "target_util = 0.8, error_budget = 0.02" in shown.stdout
    assert "nothing of it is carried out" in shown.stdout
    assert "over 1.0 h, in imagination" in shown.stdout
    row = next(line for line in shown.stdout.splitlines() if line.startswith("$/h, mean"))
    assert row.split()[-3:] == ["-", "2.510", "1.710"]
    assert json.loads(stoker("advise", "7", "--json").stdout) == ADVICE
    assert len(sent(peers, "PUT", "/api/v0/endptjobs/7/advice/")) == 1, (
        "showing the comparison changes nothing"
    )


def test_the_analysis_is_stopped_and_without_one_the_command_that_starts_it_is_named(peers, stoker):
    assert "advice is stopped" in stoker("advise", "llm", "--stop").stdout
    peers.console_replies["GET", "/api/v0/endptjobs/7/advice/"] = json_reply({"advice": {"active": False}})
    assert "try: stoker advise llm --target-util 0.8" in stoker("advise", "llm").stdout
    assert stoker("advise", "llm", "--stop", "--min-load", "3").exit_code == 2
    assert stoker("advise", "llm", "--target-util", "3").exit_code != 0


def test_a_request_prints_its_answer_and_its_timing(peers, stoker):
    shown = stoker("request", "llm", "/x", '{"n": 1}', "--cost", "5")
    assert shown.exit_code == 0
    assert json.loads(shown.stdout) == {"echo": {"n": 1}}
    assert "worker 42: " in shown.stderr
    assert "waited" in shown.stderr
    result = json.loads(stoker("request", "llm", "/x", "-", "--json", stdin='{"n": 2}').stdout)
    assert result["response"] == {"echo": {"n": 2}}
    assert result["timing"]["total_s"] > 0
    assert (result["worker_id"], result["attempts"]) == (42, 1)


def test_a_waiting_request_prints_the_reason(peers, stoker):
    peers.route_replies.append(peers.wait("booting", "a worker loads its model", eta_s=140))
    assert "a worker loads its model, about 140 s" in stoker("request", "llm", "/x").stderr


def test_a_stream_is_printed_event_by_event(peers, stoker):
    peers.worker_replies += [chunks(b"data: one\n\ndata: two\n\ndata: [DONE]\n\n")] * 2
    assert stoker("request", "llm", "/x", "--stream").stdout == "one\ntwo\n"
    lines = stoker("request", "llm", "/x", "--stream", "--json").stdout.splitlines()
    assert [json.loads(line)["data"] for line in lines] == ["one", "two"]


def test_a_payload_comes_from_a_file_and_a_body_goes_to_one(peers, stoker, tmp_path):
    (tmp_path / "payload.json").write_text('{"prompt": "a cat"}')
    peers.worker_replies.append(raw_reply(b"\x89PNG\xff", "image/png"))
    picture = tmp_path / "cat.png"
    shown = stoker("request", "llm", "/draw", f"@{tmp_path / 'payload.json'}", "-o", str(picture))
    assert (shown.exit_code, shown.stdout) == (0, "")
    assert picture.read_bytes() == b"\x89PNG\xff"
    assert peers.worker_calls[0].body["payload"] == {"prompt": "a cat"}


def test_a_payload_nested_too_deeply_is_wrong_use(peers, stoker):
    shown = stoker("request", "llm", "/x", "-", stdin="[" * 90_000)
    assert shown.exit_code == 2
    assert "nested too deeply" in shown.stderr
    assert peers.route_calls == []


def test_half_a_surrogate_in_an_answer_is_printed_as_its_escape(peers, stoker):
    peers.worker_reply = json_reply({"text": "\ud83d"})
    shown = stoker("request", "llm", "/x")
    assert shown.exit_code == 0
    assert json.loads(shown.stdout) == {"text": "\ud83d"}


def test_half_a_surrogate_in_a_table_is_printed_as_its_escape(peers, stoker):
    peers.console_replies["GET", "/api/v0/endptjobs/7/decisions/"] = json_reply(
        {"decisions": [DECISION | {"reason": "half \ud83d"}]}
    )
    shown = stoker("decisions", "llm")
    assert shown.exit_code == 0
    assert "half \\ud83d" in shown.stdout


def test_an_output_file_that_cannot_be_written_is_refused_before_the_request(peers, stoker, tmp_path):
    for place in (tmp_path / "absent" / "f", tmp_path):
        shown = stoker("request", "llm", "/x", "-o", str(place))
        assert shown.exit_code == 2
        assert "cannot write the body" in shown.stderr
    assert peers.route_calls == []


def test_a_failed_request_does_not_change_the_output_file(peers, stoker, tmp_path):
    peers.worker_reply = problem(422, "bad", "no prompt")
    held, absent = tmp_path / "held", tmp_path / "absent"
    held.write_text("before")
    for place in (held, absent):
        assert stoker("request", "llm", "/x", "-o", str(place)).exit_code == 1
    assert held.read_text() == "before"
    assert not absent.exists()


def test_an_invalid_endpoint_name_is_wrong_use_with_an_endpoints_key_too(peers, stoker):
    for name in ("", "x" * 300):
        shown = stoker("request", name, "/x", STOKER_API_KEY=peers.endpoint_key)
        assert shown.exit_code == 2
        assert "can be no endpoint's name" in shown.stderr
    assert peers.route_calls == []


def test_watch_shows_an_endpoint_and_stops_after_count_updates(stoker):
    shown = stoker("watch", "llm", "--count", "1")
    assert shown.exit_code == 0
    for part in (
        "llm: active",
        "load/s 42",
        "queued 3",
        "$/h 0.31",
        "H100",
        "[needs] more",
        "the budget is used up",
    ):
        assert part in shown.stdout
    lines = stoker("watch", "llm", "--count", "2", "--interval", "0.2", "--json").stdout.splitlines()
    assert [json.loads(line)["status"]["state"] for line in lines] == ["active", "active"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["endpoints", "show", "nope"], "no endpoint 'nope'"),
        (["request", "nope", "/x"], "no endpoint 'nope'"),
        (["workergroups", "show", "6"], "no workergroup 6"),
    ],
)
def test_an_unknown_object_is_exit_code_one(stoker, arguments, sentence):
    shown = stoker(*arguments)
    assert shown.exit_code == 1
    assert sentence in shown.stderr
    assert shown.stdout == ""


def test_a_failed_request_is_exit_code_one(peers, stoker):
    peers.worker_reply = problem(422, "bad", "max_tokens must be positive")
    shown = stoker("request", "llm", "/x")
    assert shown.exit_code == 1
    assert "max_tokens must be positive" in shown.stderr
    peers.worker_reply = None
    peers.route_replies += [peers.wait("no_capacity", "no offer matches")] * 1000
    shown = stoker("request", "llm", "/x", "--timeout", "1.5")
    assert shown.exit_code == 1
    assert "no offer matches" in shown.stderr


def test_a_wrong_key_and_an_absent_engine_are_exit_code_one(stoker, monkeypatch):
    monkeypatch.setattr("stoker.cli.context.ENGINE_SECONDS_MAX", 0.1)
    shown = stoker("endpoints", "list", STOKER_API_KEY="wrong")
    assert shown.exit_code == 1
    assert "opens nothing" in shown.stderr
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        shown = stoker("endpoints", "list", STOKER_URL=f"http://127.0.0.1:{probe.getsockname()[1]}")
    assert shown.exit_code == 1
    assert "has not answered" in shown.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["endpoints", "create"],
        ["endpoints", "create", "new", "--max-workers", "many"],
        ["endpoints", "create", "new", "--target-util", "2"],
        ["endpoints", "create", "new", "--state", "off"],
        ["endpoints", "update", "llm"],
        ["workergroups", "create", "llm"],
        ["workergroups", "update", "5"],
        ["workergroups", "show", "five"],
        ["workers"],
        ["workers", "llm", "-g", "5"],
        ["logs", "llm", "--level", "4"],
        ["decisions", "llm", "--tail", "0"],
        ["request", "llm"],
        ["request", "llm", "/x", "{"],
        ["request", "llm", "/x", "@/nonexistent"],
        ["request", "llm", "x"],
        ["request", "llm", "/x", "{}", "--cost", "-1"],
        ["request", "llm", "/x", "--stream", "-o", "f"],
        ["watch", "llm", "--interval", "0"],
        ["--url", "engine:8080", "endpoints", "list"],
    ],
    ids=" ".join,
)
def test_wrong_use_is_exit_code_two_and_changes_nothing(peers, stoker, arguments):
    shown = stoker(*arguments)
    assert shown.exit_code == 2
    assert shown.stderr.strip()
    assert not peers.worker_calls
    assert not [called for called, _ in peers.console_calls if called != "GET"]


def test_without_address_or_key_the_error_names_the_variables(stoker, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a deployment of the checkout would be found
    shown = stoker("endpoints", "list", STOKER_URL="", STOKER_API_KEY="")
    assert shown.exit_code == 2
    assert "STOKER_URL" in shown.stderr


def test_the_installed_command_prints_its_version():
    shown = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; sys.argv = ['stoker', '--version']; from stoker.cli import main; main()",
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert shown.stdout.startswith("stoker ")


RAW = ("\x1b", "\x07", "\x9b", "\u202e", "\r")


@pytest.fixture
def hostile(peers):
    """An engine whose names, reasons and figures contain hostile text."""
    one = "/api/v0/endptjobs/7/"
    replies = {
        ("GET", one + "status/"): STATUS
        | {"state": HOSTILE, "waits": [{"reason": HOSTILE}], "workers": {HOSTILE: 1}, HOSTILE: HOSTILE},
        ("GET", one + "decisions/"): {
            "decisions": [DECISION | {"reason": HOSTILE, "kind": HOSTILE, "subject": HOSTILE}]
        },
        ("GET", one + "costs/"): {"dollars": 1.25, "by_worker": {HOSTILE: 0.5}},
        ("GET", one + "advice/"): {
            "advice": ADVICE | {"summary": HOSTILE, "config": {HOSTILE: HOSTILE}}
        },
        ("GET", one + "hosts/"): {"hosts": {"blocked": [HOSTS["blocked"][0] | {"reason": HOSTILE}]}},
        ("POST", "/get_endpoint_workers/"): [
            WORKER | {"status": HOSTILE, "gpu_name": HOSTILE, "url": HOSTILE}
        ],
        ("POST", "/get_endpoint_logs/"): {"info0": HOSTILE, "info1": "", "trace": "", "debug": ""},
        ("GET", "/api/v0/workergroups/"): {
            "success": True,
            "results": [GROUP | {"template_hash": HOSTILE, "search_params": HOSTILE, "endpoint_name": HOSTILE}],
        },
    }  # fmt: skip
    peers.console_replies |= {call: json_reply(body) for call, body in replies.items()}
    return peers


def strings(value):
    """Every string in a JSON value, keys included."""
    if isinstance(value, dict):
        return [text for each in value.items() for inner in each for text in strings(inner)]
    return [text for each in value for text in strings(each)] if isinstance(value, list) else [value]


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize(
    "arguments",
    [
        ("endpoints", "show", "llm"),
        ("workers", "llm"),
        ("logs", "llm"),
        ("decisions", "llm"),
        ("costs", "llm"),
        ("advise", "llm"),
        ("hosts", "list"),
        ("workergroups", "list"),
        ("workergroups", "show", "5"),
        ("watch", "llm", "--count", "1", "--interval", "0.2"),
    ],
)
def test_foreign_text_does_not_control_the_terminal(hostile, stoker, arguments, as_json):
    shown = stoker(*arguments, *(["--json"] if as_json else []))
    assert shown.exit_code == 0, shown.output
    assert not [each for each in RAW if each in shown.output]
    assert "owned" in shown.output.replace("\n", "")
    if as_json:
        assert HOSTILE in strings(json.loads(shown.stdout))
    elif arguments[0] != "logs":
        assert "\nfaked line" not in shown.output
        flat = "".join(line.strip() for line in shown.output.split("\n"))
        assert "[red]" in flat.replace(" ", "")


def test_a_foreign_error_text_is_one_line(peers, stoker):
    peers.console_replies["GET", "/api/v0/endptjobs/7/costs/"] = problem(400, "odd\x1b", HOSTILE)
    shown = stoker("costs", "llm")
    assert shown.exit_code == 1
    assert not [each for each in RAW if each in shown.output]
    assert shown.stderr.count("\n") == 1


def test_a_foreign_wait_reason_is_one_line(peers, stoker):
    peers.worker_reply = problem(503, "busy", HOSTILE)
    shown = stoker("request", "llm", "/x", "--timeout", "1")
    assert not [each for each in RAW if each in shown.stderr]
    assert "\nfaked line" not in shown.stderr


def test_a_models_text_goes_unchanged_into_a_pipe(peers, stoker):
    peers.worker_reply = raw_reply(b"\x1b[1mbold\x1b[0m", content_type="text/plain")
    assert stoker("request", "llm", "/x").stdout == "\x1b[1mbold\x1b[0m"


def test_only_the_output_module_writes_to_the_terminal():
    folder = Path(stoker_cli.__file__).parent
    writers = {
        path.name
        for path in folder.glob("*.py")
        if re.search(
            r"std(out|err)\.(write|buffer\.write)|print\(|echo\(",
            path.read_text().replace("console().print(", "").replace("_print(", ""),
        )
    }
    # `request` writes a model's bytes to a pipe; `app` and `__init__` write constant text
    assert writers <= {"output.py", "request.py", "app.py", "__init__.py"}


def test_blocked_hosts_are_listed_with_reason_and_end(peers, stoker):
    for arguments in (["hosts"], ["hosts", "list"], ["hosts", "list", "--endpoint", "llm"]):
        result = stoker(*arguments, COLUMNS="200")
        assert result.exit_code == 0, result.output
        for text in (
            "17",
            "2025-11-23 13:53:20",
            "Xid [79]",
            "not blocked",
            "CUDA error",
            "workergroup 5 pauses",
        ):
            assert text in result.output, (arguments, text)
    assert json.loads(stoker("hosts", "list", "--json").output) == {"llm": HOSTS}
    peers.console_replies["GET", "/api/v0/endptjobs/7/hosts/"] = json_reply({"hosts": {"blocked": []}})
    assert "no host is blocked" in stoker("hosts").output


def test_hosts_are_unblocked_by_machine_id_or_all_at_once(peers, stoker):
    path = "/api/v0/endptjobs/7/hosts/unblock/"
    assert "2 hosts may be rented again: 17, 18" in stoker("hosts", "unblock", "llm", "17", "18").output
    assert json.loads(stoker("hosts", "unblock", "llm", "--json").output)["unblocked"] == [17, 18]
    assert [body["machine_ids"] for body in sent(peers, "POST", path)] == [[17, 18], []]
    assert stoker("hosts", "unblock", "llm", "0").exit_code == 2
    peers.console_replies["POST", path] = json_reply({"success": True, "unblocked": []})
    assert "none of these hosts was blocked" in stoker("hosts", "unblock", "llm", "9").output
