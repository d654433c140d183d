"""The progress of a boot, and the lines to paste at its end."""

import ast
import json
import shlex
from pathlib import Path

import pytest

from policy.planning import recruit
from stoker.management.records import WorkerRecord
from stoker.up.progress import BootProgress
from stoker.up.request import UpRequest
from stoker.up.usage import usage_lines
from stoker_wire.presets import PRESETS


def worker(status, number=10001, **more):
    return WorkerRecord.model_validate(
        {"id": number, "status": status, "kind": "1x RTX 4090", "dph_total": 0.41, "error_msg": "", **more}
    )


def test_each_phase_is_reported_once():
    progress = BootProgress()
    steps = [
        ("creating", "Pulling from vllm/vllm-openai"),
        ("creating", "Pulling from vllm/vllm-openai"),
        ("created", "Pulling from vllm/vllm-openai: 40 %"),
        ("model_loading", ""),
        ("idle", ""),
    ]
    told = [progress.lines([worker(status)], [], {10001: host}) for status, host in steps]
    assert told == [
        [
            "worker 10001: the marketplace creates the instance on 1x RTX 4090, $0.41/h",
            "worker 10001: Pulling from vllm/vllm-openai",
        ],
        [],
        ["worker 10001: the host pulls the image", "worker 10001: Pulling from vllm/vllm-openai: 40 %"],
        ["worker 10001: the model loads: download, load, benchmark"],
        ["worker 10001: ready"],
    ]


def test_the_end_of_the_load_is_no_step_back():
    """The worker's report has no phase any more; the workflow says `model_loading` until it has read that."""
    progress = BootProgress()
    steps = [
        ("creating", "download"),
        ("model_loading", "download"),
        ("model_loading", "load"),
        ("model_loading", ""),
        ("idle", ""),
    ]
    told = [progress.lines([worker(status, phase=phase)], [], {}) for status, phase in steps]
    assert told == [
        ["worker 10001: downloads the model"],
        [],
        ["worker 10001: loads the model"],
        [],
        ["worker 10001: ready"],
    ]


def test_decisions_and_errors_are_reported_once():
    progress = BootProgress()
    decision = {"at": 100.0, "kind": "recruit", "reason": "below min_workers"}
    failed = worker("error", error_msg="bootstrap: the download of uv failed")
    assert progress.lines([failed], [decision], {}) == [
        "recruit: below min_workers",
        "worker 10001: failed",
        "worker 10001: error: bootstrap: the download of uv failed",
    ]
    assert progress.lines([failed], [decision], {}) == []


def verdict_after(*causes: str) -> str:
    progress = BootProgress()
    decisions = [
        {"at": float(at), "kind": "destroy", "reason": f"error before it was ever ready: {cause}"}
        for at, cause in enumerate(causes, start=1)
    ]
    progress.lines([], decisions, {})
    return progress.verdict()


def test_the_wait_ends_when_a_second_worker_fails_for_the_same_reason():
    argument = "the model server does not know an argument: correct MODEL_ARGS"
    assert verdict_after() == ""
    assert verdict_after(argument) == ""
    assert verdict_after("the disk is full", argument) == ""
    assert verdict_after(argument, "the disk is full", argument) == (
        f"3 workers failed before they were ready; the last: {argument}"
    )
    exits = "the model server exited with status 1 after {} s; its log says: {}"
    assert verdict_after(*(exits.format(at, "KeyError: 'head_dim'") for at in (71.1, 56.9)))
    assert (
        verdict_after(exits.format(71.1, "KeyError: 'head_dim'"), exits.format(71.1, "AttributeError: x"))
        == ""
    )
    assert verdict_after("a", "b", "c") == ""
    assert verdict_after("a", "b", "c", "d").startswith("4 workers failed")


@pytest.mark.parametrize("name", PRESETS)
def test_the_lines_to_paste_are_a_shell_and_python_and_hold_no_key(name):
    lines = usage_lines(PRESETS[name], engine_url="https://engine.example.org", endpoint="my model")
    text = "\n".join(lines)
    assert lines[0] == "export STOKER_URL=https://engine.example.org"
    assert lines[1].startswith("export OPENAI_BASE_URL=https://engine.example.org/openai/")
    (curl,) = (line for line in lines if line.startswith("curl "))
    words = shlex.split(curl)
    assert words[1].startswith("https://engine.example.org/openai/my%20model/")
    assert "file=@speech.wav" not in words or "model=my model" in words
    if "-d" in words:
        json.loads(words[words.index("-d") + 1])
    python = next(at for at, line in enumerate(lines) if line.startswith("# Python"))
    code = ast.parse("\n".join(lines[python:]))
    calls = [node for node in ast.walk(code) if isinstance(node, ast.Call)]
    printed = [each for each in calls if isinstance(each.func, ast.Name) and each.func.id == "print"]
    assert len(printed) == text.count("# Python"), "each part shows its answer"
    assert "sk-" not in text


@pytest.mark.parametrize(
    ("variables", "named"),
    [({}, "Qwen/Qwen2.5-0.5B-Instruct"), ({"MODEL_ALIAS": "qwen"}, "qwen")],
)
def test_the_sdk_names_the_model_as_its_server_does(variables, named):
    """Its request goes to the worker, where only the engine's OpenAI API would know the endpoint's name."""
    request = UpRequest(
        preset=PRESETS["vllm"], endpoint="mine", model="Qwen/Qwen2.5-0.5B-Instruct", variables=variables
    )
    lines = usage_lines(
        request.preset, engine_url="http://engine:1", endpoint="mine", model=request.served_model
    )
    (asked,) = (line for line in lines if ".request(" in line)
    assert f"{{'model': '{named}', " in asked
    assert 'chat.completions.create(model="mine"' in "\n".join(lines)


@pytest.mark.parametrize("routes", ['[{"path": "/predict"}, "/more"]', "/predict, /more"])
def test_a_server_without_a_preset_is_asked_on_its_own_route(routes):
    request = UpRequest(preset=PRESETS["http"], endpoint="app", variables={"MODEL_ROUTES": routes})
    assert request.added_routes == ["/predict", "/more"]
    lines = usage_lines(
        request.preset, engine_url="http://127.0.0.1:8080", endpoint="app", routes=request.added_routes
    )
    assert any(line.startswith("curl http://127.0.0.1:8080/openai/app/predict ") for line in lines)


def test_a_path_is_one_word_of_the_shell_and_one_string_of_python():
    path = """/it's/"$(id)"/{x}"""
    lines = usage_lines(PRESETS["http"], engine_url="http://engine/a&b", endpoint="app", routes=[path])
    assert shlex.split(lines[0]) == ["export", "STOKER_URL=http://engine/a&b"]
    (curl,) = (line for line in lines if line.startswith("curl "))
    assert shlex.split(curl)[1] == f"http://engine/a&b/openai/app{path}"
    code = ast.parse("\n".join(lines[lines.index("import stoker") :]))
    assert path in [node.value for node in ast.walk(code) if isinstance(node, ast.Constant)]


@pytest.mark.parametrize("routes", ["", "[{]", '[{"rule": {}}]', "[[]]", "[5]"])
def test_routes_that_the_worker_refuses_are_no_fault_of_the_plan(routes):
    assert (
        UpRequest(preset=PRESETS["http"], endpoint="app", variables={"MODEL_ROUTES": routes}).added_routes
        == []
    )


def test_a_shell_without_the_key_gets_it_together_with_the_address():
    """With the key alone, `stoker` no longer takes the address from the deployment in the directory."""
    preset = PRESETS["llama-server"]
    local = {"engine_url": "http://127.0.0.1:8080", "endpoint": "llm"}
    lines = usage_lines(preset, **local, key="$(stokerd key)")
    assert lines[0] == "export STOKER_URL=http://127.0.0.1:8080 STOKER_API_KEY=$(stokerd key)"
    assert lines[1:] == usage_lines(preset, **local)[1:]


@pytest.mark.parametrize(
    ("reason", "said_by_the_planner"),
    [
        (
            "no machine can run workergroup 7 before its template, model or secrets change: 1x CPU: no such model",
            "no machine can run workergroup ",
        ),
        (
            "workergroup 7 pauses after 3 equal failures on several hosts; check its template or the request",
            " equal failures on several hosts",
        ),
    ],
)
def test_the_wait_ends_when_no_other_machine_is_rented(reason, said_by_the_planner):
    decisions = [
        {"at": 5.0, "kind": "fail", "reason": "create of 2a4469 failed: no such secret"},
        {"at": 5.0, "kind": "wait", "reason": reason},
    ]
    progress = BootProgress()
    assert len(progress.lines([], decisions, {})) == 2, "both of one plan"
    assert progress.verdict() == reason
    assert said_by_the_planner in Path(recruit.__file__).read_text()
    assert said_by_the_planner in reason
