"""The worker runs the model server itself: exit, restart, crash loop, output, environment, stop."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import textwrap
from pathlib import Path

import pytest

from run.state_folder.lock import free_port
from stoker_pyworker import ConfigError, HandlerConfig, LogActionConfig, Worker, WorkerConfig
from stoker_pyworker.model.server import process_group, supervisor
from stoker_pyworker.model.server.output_log import OutputLog
from stoker_pyworker.server_config import FailureCause, ModelServerConfig
from tests.pyworker.harness import handlers, until

SERVER = textwrap.dedent("""
    import http.server, json, os, signal, sys
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        def answer(self, body):
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        def do_GET(self):
            self.answer(json.dumps({"pid": os.getpid(), "env": dict(os.environ)}).encode())
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if b"crash" in body:
                print("RuntimeError: CUDA error: device-side assert triggered", flush=True)
                os._exit(3)
            self.answer(body)
        def log_message(self, *_):
            pass
    def ended(*_):
        print("bye", flush=True)
        sys.exit(0)
    signal.signal(signal.SIGTERM, ended)
    http.server.ThreadingHTTPServer.allow_reuse_address = True
    server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
    print("\\x1b[32mmodel ready\\x1b[0m", flush=True)
    server.serve_forever()
""")
CHILD = "import subprocess; subprocess.Popen(['sleep', '600'], start_new_session=True)\n"
"""A child with a session of its own, which a signal to the process group does not reach."""
RENAMED = textwrap.dedent("""
    import ctypes, os, sys, time
    fields = open("/proc/self/stat", "rb").read().rpartition(b")")[2].split()
    ctypes.memset(int(fields[47]), 0, int(fields[48]) - int(fields[47]))
    with open(sys.argv[1] + ".part", "w") as file:
        file.write(str(os.getpid()))
    os.rename(sys.argv[1] + ".part", sys.argv[1])
    time.sleep(600)
""")
"""Overwrites the variables that `/proc` shows of it, as a process does that sets its title; writes its id into a file."""
CAUSES = (
    FailureCause(name="gpu", pattern=r"cuda error", sentence="the GPU failed: choose another offer"),
    FailureCause(
        name="no_model",
        pattern=r"no such model",
        sentence="no such model: correct MODEL_NAME",
        final=True,
        everywhere=True,
    ),
)


@pytest.fixture
def port():
    return free_port()


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(supervisor, "_PAUSE_SECONDS", 0.05)
    monkeypatch.setattr(supervisor, "_PORT_SECONDS", 0.3)


@pytest.fixture
def run(make_worker, port, quick):
    """A worker that runs the script as its model server."""

    async def run(script=SERVER, *, ready=True, on_load=(), health="/health", **options):
        server = ModelServerConfig(
            command=(sys.executable, "-c", script, str(port)),
            causes=CAUSES,
            **({"stop_seconds_max": 5.0} | options),
        )
        config = WorkerConfig(
            handlers=handlers(),
            model_server_port=port,
            model_healthcheck_url=health,
            log_action_config=LogActionConfig(on_load=list(on_load)),
            server=server,
        )
        return await make_worker(config, ready=ready)

    return run


def pid_of(worker):
    return worker.runtime.startup.supervisor._process.pid


async def test_the_worker_starts_the_server_serves_and_stops_it(run, tmp_path):
    worker = await run(on_load=["model ready"])
    assert (await worker.post("/echo", {"n": 1})).json() == {"n": 1}
    pid = pid_of(worker)
    await worker.stop()
    await until(lambda: not Path(f"/proc/{pid}").exists())
    assert (tmp_path / "model.log").read_text() == "\x1b[32mmodel ready\x1b[0m\nbye\n"


async def test_an_exit_while_loading_is_an_error_with_status_and_last_lines(run):
    worker = await run("print('loading'); print('cannot open the file'); raise SystemExit(7)", ready=False)
    health = worker.runtime.health
    await until(lambda: "exited with status 7" in health.error)
    assert health.error.endswith("its log ends with: loading | cannot open the file")
    await until(lambda: "status 7" in worker.engine.statuses[-1]["error_msg"])


async def test_the_first_error_of_the_log_is_shown_and_not_its_consequences(run):
    lines = ["RuntimeError: unsupported head_dim=16", "EngineDeadError: see above", "shutdown complete"]
    worker = await run(f"for line in {lines}: print('(core pid=7) ERROR [core.py:1]', line)", ready=False)
    await until(lambda: worker.runtime.health.error)
    assert worker.runtime.health.error.endswith(
        "its log says: (core pid=7) ERROR [core.py:1] RuntimeError: unsupported head_dim=16"
    )


async def test_the_end_of_a_long_log_is_in_the_worker_s_own_log(run, capfd):
    lines = "for n in range(900): print(f'loading layer {n}')\n"
    worker = await run(f"{lines}print('ValueError: bad weights'); raise SystemExit(1)", ready=False)
    await until(lambda: worker.runtime.health.error)
    shown = capfd.readouterr()
    logged = shown.out + shown.err
    assert "loading layer 199" in logged  # the first lines are copied as they come
    assert "loading layer 500" not in logged
    assert "loading layer 899" in logged
    assert logged.index("ValueError: bad weights") < logged.index("model_server_ended")


async def test_a_crash_loop_ends_after_five_exits(run):
    worker = await run("raise SystemExit(1)", ready=False)
    await until(lambda: worker.runtime.startup.supervisor.gave_up)
    assert worker.runtime.health.error.endswith("crash loop: 5 exits in a row, so it is not started again")


async def test_a_cause_that_a_restart_cannot_mend_is_final(run):
    worker = await run("print('OSError: no such model: x/y'); raise SystemExit(1)", ready=False)
    own = worker.runtime.startup.supervisor
    await until(lambda: own.gave_up)
    assert own.exits == 1
    assert worker.runtime.health.error.startswith(
        "no such model: correct MODEL_NAME; the model server exited"
    )
    assert worker.runtime.health.error.endswith("its log says: OSError: no such model: x/y")
    await until(lambda: worker.engine.statuses[-1]["error_everywhere"])


async def test_the_phases_of_a_boot_are_reported(run):
    script = "import time\nprint('model.gguf: 10%|x| 1/9 [00:01, 9.1MB/s]', flush=True); time.sleep(60)"
    worker = await run(script, ready=False)
    await until(lambda: worker.engine.statuses and worker.engine.statuses[-1]["phase"] == "download")
    assert worker.engine.statuses[-1]["error_everywhere"] is False


async def test_a_program_that_is_not_there_is_named(make_worker, port, quick):
    config = WorkerConfig(
        handlers=handlers(),
        model_server_port=port,
        server=ModelServerConfig(command=("no-such-program", "serve")),
    )
    worker = await make_worker(config, ready=False)
    await until(lambda: worker.runtime.health.error)
    assert worker.runtime.health.error == (
        "the model server cannot be started: no-such-program: No such file or directory;"
        " install it or correct the name"
    )
    assert worker.runtime.health.error_everywhere


async def test_a_server_that_crashes_in_use_is_started_again(run):
    worker = await run()
    first = pid_of(worker)
    assert (await worker.post("/echo", {"do": "crash"})).status_code == 502
    await until(lambda: worker.runtime.health.error.startswith("the GPU failed: choose another offer"))
    await until(lambda: not worker.runtime.health.error)
    assert pid_of(worker) != first
    assert (await worker.post("/echo", {"n": 2})).json() == {"n": 2}


async def test_the_server_gets_the_environment_without_the_workers_credentials(run, monkeypatch):
    for name in ("MASTER_TOKEN", "REPORT_ADDR", "HF_TOKEN"):
        monkeypatch.setenv(name, f"value of {name}")
    worker = await run(env={"CHOSEN": "yes $HOME; `ls`"})
    async with contextlib.AsyncExitStack() as stack:
        reader, writer = await asyncio.open_connection("127.0.0.1", worker.runtime.pool.port)
        stack.callback(writer.close)
        writer.write(b"GET /health HTTP/1.1\r\nHost: m\r\nConnection: close\r\n\r\n")
        seen = json.loads((await reader.read()).partition(b"\r\n\r\n")[2])["env"]
    assert seen["CHOSEN"] == "yes $HOME; `ls`"
    assert seen["HF_TOKEN"] == "value of HF_TOKEN"
    assert not {"MASTER_TOKEN", "REPORT_ADDR"} & seen.keys()


async def test_a_server_that_is_not_ready_in_time_is_stopped(run):
    worker = await run(
        "import time; print('loading', flush=True); time.sleep(60)", ready=False, startup_seconds_max=0.5
    )
    own = worker.runtime.startup.supervisor
    await until(lambda: own.gave_up)
    assert (
        worker.runtime.health.error == "the model server was not ready after 0 s; its log ends with: loading"
    )
    assert not own.running


async def test_a_server_that_ignores_sigterm_is_killed_with_its_children(run):
    ignores = SERVER.replace("sys.exit(0)", "pass")
    ignores = ignores.replace("signal.signal(", CHILD + "signal.signal(", 1)
    worker = await run(ignores, stop_seconds_max=0.2)
    own = worker.runtime.startup.supervisor
    await until(lambda: len(process_group.marked(own._mark)) >= 2)
    await worker.stop()
    await until(lambda: not process_group.marked(own._mark))


def with_renamed(file):
    """A line that starts such a child."""
    return f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {RENAMED!r}, {str(file)!r}])\n"


def ended(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


async def test_a_child_that_sets_its_title_ends_with_the_server_that_crashed(run, tmp_path):
    worker = await run(with_renamed(tmp_path / "child") + SERVER)
    await until((tmp_path / "child").exists)
    child = int((tmp_path / "child").read_text())
    assert not ended(child)
    os.kill(pid_of(worker), signal.SIGKILL)
    await until(lambda: ended(child))


async def test_the_session_of_a_server_that_ended_long_ago_is_not_killed(run, monkeypatch):
    """Another process may have its id by now."""
    sessions = []
    marked = process_group.marked
    monkeypatch.setattr(
        process_group, "marked", lambda mark, session=0: sessions.append(session) or marked(mark, session)
    )
    worker = await run("print('no such model'); raise SystemExit(1)", ready=False)
    own = worker.runtime.startup.supervisor
    await until(lambda: own.gave_up)
    assert sessions[0] > 1
    sessions.clear()
    await own.stop()
    assert set(sessions) == {0}


async def test_a_port_that_another_process_keeps_is_an_error(run, port):
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()
        worker = await run(ready=False)
        await until(lambda: "another process already listens" in worker.runtime.health.error)
    await worker.ready()
    await until(lambda: not worker.runtime.health.error)


async def test_a_server_that_an_ended_worker_left_behind_is_found(tmp_path):
    *_, namespace = process_group.own_mark().split("-")
    mark = f"1-999999999999-{namespace}"  # the process 1 has another start time
    container = await asyncio.create_subprocess_exec(
        "sleep", "600", env={**os.environ, process_group.MARK: "1-999999999999-7"}
    )
    script = with_renamed(tmp_path / "child") + "import time; time.sleep(600)"
    left = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, env={**os.environ, process_group.MARK: mark}, start_new_session=True
    )
    try:
        await until((tmp_path / "child").exists)
        child = int((tmp_path / "child").read_text())
        assert {left.pid, child} <= set(process_group.abandoned())
        assert not {os.getpid(), container.pid} & set(process_group.abandoned())
        process_group.kill(process_group.abandoned())
        assert await left.wait() == -signal.SIGKILL
        assert container.returncode is None
    finally:
        for each in (left, container):
            with contextlib.suppress(ProcessLookupError):
                each.kill()
            await each.wait()


def test_the_log_file_is_bounded_and_the_tail_is_clean(tmp_path):
    log = OutputLog(tmp_path / "logs" / "model.log", bytes_max=1000)
    for number in range(100):
        log.feed(b"\x1b[1mline %d\x1b[0m of a server that prints a lot\n" % number)
    assert log.feed(b"10 %\r20 %\r") == ["10 %", "20 %"]
    assert log.feed(b"half") == []
    assert log.end() == ["half"]
    log.close()
    sizes = [path.stat().st_size for path in (tmp_path / "logs").iterdir()]
    assert len(sizes) == 2
    assert max(sizes) <= 1000
    assert list(log.tail)[-4:] == ["line 99 of a server that prints a lot", "10 %", "20 %", "half"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"command": []}, "expected a program and its arguments"),
        ({"command": "vllm serve"}, "expected a list such as"),
        ({"command": ["vllm", 8000]}, "expected text for each argument, received 8000"),
        ({"command": ["x"], "startup_seconds_max": 0}, "expected seconds above 0"),
    ],
)
def test_an_invalid_command_is_refused_with_a_sentence(options, message):
    config = WorkerConfig(handlers=[HandlerConfig(route="/x")], model_server_port=1)
    with pytest.raises(ConfigError, match=message):
        Worker(config, **options)


@pytest.mark.parametrize(
    ("pattern", "line", "least", "most"),
    [
        (r"weights for .*: (?P<seconds>[0-9.]+) seconds", "Time spent on weights for org/m: 67.5 seconds", 67.5, 67.5),
        (r"^weights are there", "weights are there", 0.0, 60.0),
        (r"weights for .*: (?P<seconds>[0-9.]+) seconds", "weights were on the disk", 0.0, 0.0),
    ],
)  # fmt: skip
async def test_the_time_of_the_download_is_reported_apart(run, pattern, line, least, most):
    worker = await run(f"print({line!r}, flush=True)\n{SERVER}", downloaded_pattern=pattern)
    await until(lambda: worker.engine.statuses and worker.engine.statuses[-1]["loadtime"])
    assert least <= worker.engine.statuses[-1]["download_seconds"] <= most
    assert (worker.engine.statuses[-1]["download_seconds"] > 0) == line.startswith(("Time", "weights are"))
