"""Presets: commands, settings and errors, as a user of the command line sees them."""

import json
import os
import re
import shlex
import subprocess
import sys
import tempfile

import pytest

from stoker_pyworker import presets
from stoker_pyworker.config import ConfigError
from stoker_pyworker.presets.__main__ import build
from stoker_wire.presets import PRESETS
from stoker_wire.workload import AudioWorkload, ConstantWorkload

FULL = {
    "MODEL_NAME": "org/model", "MODEL_ALIAS": "small one", "MODEL_CONTEXT": "4096", "MODEL_PARALLEL": "8",
    "MODEL_GPUS": "2", "MODEL_PORT": "8123", "MODEL_ARGS": "--note 'two words; $HOME'",
}  # fmt: skip
COMMANDS = {
    "vllm": "vllm serve org/model --host 127.0.0.1 --port 8123 --served-model-name|small one|--max-model-len 4096"
    " --max-num-seqs 8 --tensor-parallel-size 2 --note|two words; $HOME",
    "sglang": "python3 -m sglang.launch_server --model-path org/model --host 127.0.0.1 --port 8123 --enable-metrics"
    " --served-model-name|small one|--context-length 4096 --max-running-requests 8 --tp-size 2 --note|two words; $HOME",
    "llama-server": "llama-server --hf-repo org/model --host 127.0.0.1 --port 8123 --metrics --no-webui --alias|small one|"
    "--parallel 8 --ctx-size 32768 --note|two words; $HOME",
    "llama-cpp-python": "python3 -m llama_cpp.server --hf_model_repo_id org/model --model *Q4_K_M*.gguf --host 127.0.0.1"
    " --port 8123 --interrupt_requests false --model_alias|small one|--n_ctx 4096 --note|two words; $HOME",
    "tgi": "text-generation-launcher --model-id org/model --hostname 127.0.0.1 --port 8123 --max-input-tokens 4095"
    " --max-total-tokens 4096"
    " --max-concurrent-requests 8 --num-shard 2 --note|two words; $HOME",
    "comfyui": "python3 main.py --listen 127.0.0.1 --port 8123 --note|two words; $HOME",
}  # fmt: skip


def words(text):
    """Splits at spaces; a `|` separates words that contain some."""
    parts = text.split("|")
    return tuple(word for at, part in enumerate(parts) for word in ([part] if at % 2 else part.split()))


@pytest.mark.parametrize("name", COMMANDS)
def test_settings_become_arguments_that_no_shell_reads(name):
    assert build(name, FULL).server.command == words(COMMANDS[name])


@pytest.mark.parametrize("name", ["vllm", "embeddings", "whisper"])
def test_vllm_makes_its_sockets_where_their_paths_are_short_enough(name, monkeypatch):
    for length, expected in ((4, None), (70, None), (71, "/tmp")):  # noqa: S108
        monkeypatch.setattr(tempfile, "tempdir", "/" * length)
        assert build(name, FULL).server.env.get("VLLM_RPC_BASE_PATH") == expected
    monkeypatch.setenv("VLLM_RPC_BASE_PATH", "/run")
    assert "VLLM_RPC_BASE_PATH" not in build(name, FULL).server.env


def test_ollama_is_configured_by_variables():
    server = build("ollama", FULL | {"MODEL_CACHE": "/models"}).server
    assert server.command[1:] == (
        "-m", "stoker_pyworker.presets.base.ollama_launcher", "org/model", "--", "ollama", "serve", "--note",
        "two words; $HOME",
    )  # fmt: skip
    assert server.env["OLLAMA_HOST"] == "127.0.0.1:8123"
    assert server.env["OLLAMA_NUM_PARALLEL"] == "8"
    assert server.env["OLLAMA_MODELS"] == "/models"


@pytest.mark.parametrize("name", ["vllm", "sglang", "llama-server", "tgi"])
def test_a_request_cannot_declare_more_tokens_than_the_context_holds(name):
    handler = build(name, FULL).handlers[0]
    assert handler.workload_calculator({"max_tokens": 1_000_000}) <= 4096
    assert handler.workload_calculator({"parameters": {"max_new_tokens": 1_000_000}}) <= 4096


NASTY = "a b'c\"d $(id) `id` \\n; & | * ~ é 模型 \U0001f680"


@pytest.mark.parametrize("name", presets.NAMES)
def test_every_character_reaches_the_server_as_it_was_given(name, tmp_path):
    """The server itself, a program that prints its arguments, is started from the command and the environment."""
    program = tmp_path / "say it.py"
    program.write_text("import json, os, sys; print(json.dumps([sys.argv[1:], dict(os.environ)]))")
    variables = {
        "MODEL_NAME": NASTY,
        "MODEL_ALIAS": NASTY,
        "MODEL_CACHE": NASTY,
        "MODEL_ARGS": shlex.join([NASTY, ""]),
        "MODEL_COMMAND": shlex.join([sys.executable, str(program)]),
        "MODEL_ROUTES": "/x" if name == "http" else "",
    }
    server = build(name, variables).server
    command = server.command[server.command.index("--") + 1 :] if name == "ollama" else server.command
    done = subprocess.run(command, env=dict(server.env), capture_output=True, check=True, timeout=60)
    arguments, environ = json.loads(done.stdout)
    assert arguments[-2:] == [NASTY, ""]
    given = [each for each in (*server.command, *arguments, *environ.values()) if NASTY in each]
    assert len(given) >= 2
    assert b"uid=" not in done.stdout, "no shell has run the command in the value"


def test_sglangs_probe_generates_no_token():
    """`/health` runs a request of one token unless this variable is off."""
    server = build("sglang", {"MODEL_NAME": "org/model"}).server
    assert server.env["SGLANG_ENABLE_HEALTH_ENDPOINT_GENERATION"] == "0"


def test_an_interrupted_benchmark_of_a_serial_server_ends():
    """llama_cpp.server notices only while it streams that its client has gone, and not before the prompt is computed;
    requests of clients wait behind it.
    """
    handlers = build("llama-cpp-python", {"MODEL_NAME": "./a.gguf"}).handlers
    (benchmark,) = (handler.benchmark_config for handler in handlers if handler.benchmark_config)
    assert all(payload["stream"] is True for payload in benchmark.dataset)
    assert all(len(payload["prompt"].split()) <= 16 for payload in benchmark.dataset)


def test_whisper_runs_vllm_or_the_users_server_with_its_own_arguments():
    model = {"MODEL_NAME": "Systran/faster-whisper-small", "MODEL_PORT": "8123"}
    assert build("whisper", model).server.command[:3] == ("vllm", "serve", "Systran/faster-whisper-small")
    other = build("whisper", model | {"MODEL_COMMAND": "/opt/vllm/bin/vllm serve"}).server.command
    assert other[:4] == ("/opt/vllm/bin/vllm", "serve", "Systran/faster-whisper-small", "--host")
    speaches = build(
        "whisper", model | {"MODEL_COMMAND": "uvicorn --factory speaches.main:create_app"}
    ).server
    assert speaches.command == ("uvicorn", "--factory", "speaches.main:create_app")
    assert speaches.env["UVICORN_HOST"] == "127.0.0.1"
    assert speaches.env["UVICORN_PORT"] == "8123"
    assert json.loads(speaches.env["PRELOAD_MODELS"]) == ["Systran/faster-whisper-small"]


@pytest.mark.parametrize("name", presets.NAMES)
def test_the_published_list_names_the_same_routes_and_program(name):
    variables = FULL | ({"MODEL_COMMAND": "serve-it", "MODEL_ROUTES": "/x"} if name == "http" else {})
    routes = [handler.route for handler in build(name, variables).handlers]
    assert tuple(routes) == (PRESETS[name].routes or ("/x",))
    if program := PRESETS[name].program:
        assert build(name, {"MODEL_NAME": "org/model"}).server.command[: len(program)] == program


def test_another_program_replaces_the_first_words():
    config = build("vllm", FULL | {"MODEL_COMMAND": "/opt/vllm/bin/vllm serve", "MODEL_ARGS": ""})
    assert config.server.command[:3] == ("/opt/vllm/bin/vllm", "serve", "org/model")


def test_a_gguf_file_is_a_file_and_everything_else_a_repository():
    assert "--model" in build("llama-server", {"MODEL_NAME": "./a.gguf"}).server.command
    assert (
        "--hf-repo" in build("llama-server", {"MODEL_NAME": "ggml-org/SmolLM3-3B-GGUF:Q8_0"}).server.command
    )


def test_names_of_vasts_templates_work_for_vllm():
    command = build("vllm", {"VLLM_MODEL": "org/model", "VLLM_ARGS": "--dtype half"}).server.command
    assert command[2] == "org/model"
    assert command[-2:] == ("--dtype", "half")


def test_an_unset_variable_of_a_template_counts_as_absent():
    empty = dict.fromkeys(FULL, "") | {"MODEL_NAME": "org/model"}
    assert build("vllm", empty).server.command == words("vllm serve org/model --host 127.0.0.1 --port 8000")


def test_the_first_perf_is_the_users_then_the_learned_then_the_presets():
    model = {"MODEL_NAME": "org/model"}
    assert build("vllm", model).server.initial_perf == 1000.0
    assert build("vllm", model | {"STOKER_PERF": "640"}).server.initial_perf == 640.0
    assert build("vllm", model | {"STOKER_PERF": "640", "MODEL_PERF": "0"}).server.initial_perf == 0.0


@pytest.mark.parametrize(
    ("name", "line", "seconds"),
    [
        ("vllm", "INFO [weight_utils.py:581] Time spent downloading weights for org/m: 17.034664 seconds", "17.034664"),
        ("whisper", "INFO [weight_utils.py:581] Time spent downloading weights for org/m: 5.3 seconds", "5.3"),
        ("embeddings", "INFO [weight_utils.py:581] Time spent downloading weights for org/m: 5.3 seconds", "5.3"),
        ("llama-server", "0.00.037.521 I srv    load_model: loading model '/models/SmolLM2.gguf'", None),
        ("tgi", "INFO download: text_generation_launcher: Successfully downloaded weights for org/m", None),
        ("ollama", "stoker: pull: success", None),
    ],
)  # fmt: skip
def test_the_log_line_after_the_download_is_known(name, line, seconds):
    found = re.search(build(name, {"MODEL_NAME": "org/m"}).server.downloaded_pattern, line)
    assert found
    assert found.groupdict().get("seconds") == seconds


def test_routes_can_be_added_with_rules():
    config = build(
        "http",
        {
            "MODEL_COMMAND": "python3 app.py",
            "MODEL_ROUTES": json.dumps(
                [
                    {"path": "/speak", "rule": {"kind": "audio"}, "parallel": False},
                    {"path": "/fast", "rule": {"kind": "constant", "load": 3}, "benchmark": [{"n": 1}]},
                    "/plain",
                ]
            ),
        },
    )
    speak, fast, plain = config.handlers
    assert isinstance(speak.workload_calculator, AudioWorkload)
    assert not speak.allow_parallel_requests
    assert fast.benchmark_config.dataset == [{"n": 1}]
    assert plain.workload_calculator == ConstantWorkload(load=100.0)


def test_a_route_of_the_preset_keeps_what_the_user_does_not_change():
    routes = [
        {"path": "/api/prompt", "parallel": False},
        {"path": "/prompt", "rule": {"kind": "audio"}},
        "/ws",
    ]
    built = build("comfyui", {"MODEL_ROUTES": json.dumps(routes)}).handlers
    usual = {handler.route: handler for handler in build("comfyui", {}).handlers}
    changed = {handler.route: handler for handler in built}
    assert changed.keys() == usual.keys()
    assert changed["/api/prompt"].response_generator is not None
    assert changed["/api/prompt"].workload_calculator is usual["/api/prompt"].workload_calculator
    assert changed["/ws"].websocket
    assert changed["/ws"].workload_calculator is None
    assert changed["/prompt"].in_job
    assert isinstance(changed["/prompt"].workload_calculator, AudioWorkload)


@pytest.mark.parametrize(
    ("name", "variables", "message"),
    [
        ("vlm", {}, "STOKER_PRESET: expected one of vllm, sglang,"),
        ("vllm", {}, "MODEL_NAME (--model): expected a Hugging Face repository"),
        ("vllm", {"MODEL_NAME": "m", "MODEL_PORT": "http"}, "MODEL_PORT: expected a whole number, received 'http'"),
        ("vllm", {"MODEL_NAME": "m", "MODEL_PORT": "70000"}, "MODEL_PORT: expected a port from 1 to 65535"),
        ("vllm", {"MODEL_NAME": "m", "MODEL_CONTEXT": "-1"}, "MODEL_CONTEXT: expected a whole number"),
        ("vllm", {"MODEL_NAME": "m", "MODEL_ARGS": "'open"}, "MODEL_ARGS: expected words in shell quoting"),
        ("vllm", {"MODEL_NAME": "m", "MODEL_PERF": "fast"}, "MODEL_PERF: expected a number of 0 or more"),
        ("http", {}, "MODEL_COMMAND (--command): expected the program"),
        ("http", {"MODEL_COMMAND": "x"}, "MODEL_ROUTES (--route): expected at least one path"),
        ("http", {"MODEL_COMMAND": "x", "MODEL_ROUTES": "[{]"}, "MODEL_ROUTES: expected paths or a JSON list"),
        ("http", {"MODEL_COMMAND": "x", "MODEL_ROUTES": '[{"rule": {}}]'}, "MODEL_ROUTES: expected paths"),
        ("http", {"MODEL_COMMAND": "x", "MODEL_ROUTES": "/x", "MODEL_PERF": "0"}, "MODEL_PERF (--perf): expected"),
        ("comfyui", {"MODEL_ROUTES": '[{"path": "/api/prompt", "benchmark": [{}]}]'}, "it takes no benchmark"),
    ],
)  # fmt: skip
def test_an_invalid_setting_is_a_sentence(name, variables, message):
    with pytest.raises(ConfigError) as error:
        build(name, variables)
    assert message in str(error.value)


def run(*arguments, **variables):
    return subprocess.run(
        [sys.executable, "-m", "stoker_pyworker.presets", *arguments],
        env={"PATH": os.environ["PATH"], **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_a_dry_run_prints_the_command_and_the_routes():
    done = run(
        "serve", "vllm", "--model", "org/model", "--dry-run", "--", "--dtype", "half", MODEL_NAME="other"
    )
    shown = json.loads(done.stdout)
    assert shown["command"][-2:] == ["--dtype", "half"]
    assert shown["command"][2] == "org/model"
    assert shown["routes"]["/v1/chat/completions"] == "tokens"


def test_a_missing_setting_ends_with_status_2_and_no_traceback():
    done = run(STOKER_PRESET="vllm")
    assert done.returncode == 2
    assert done.stderr.startswith("stoker: MODEL_NAME (--model): expected")
