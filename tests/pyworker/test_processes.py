"""Workers as processes: signals, TLS, a bare environment, and the example with its model."""

import asyncio
import contextlib
import datetime as dt
import ipaddress
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import tomllib
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from run.state_folder.lock import free_port
from tests.pyworker.harness import LAUNCH, SMALL, TOKEN, Process, Remote, until

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "text_model"


async def test_sigterm_finishes_running_requests_and_exits_0(start, model, engine):
    worker = await start()
    await until(lambda: worker.event("ready"))
    running = asyncio.create_task(worker.remote.post("/held", {"n": 1}))
    await until(lambda: model.answering == 1)
    worker.process.send_signal(signal.SIGTERM)
    await until(lambda: worker.event("draining"))
    refused = await worker.remote.post("/echo")
    assert refused.json()["error"] == "worker_draining"
    model.go.set()
    assert (await running).json() == {"n": 1}
    assert await worker.process.wait() == 0
    assert engine.statuses[-1]["draining"] is True
    assert engine.statuses[-1]["num_requests_working"] == 0


async def test_a_second_sigterm_is_ignored_and_a_sigint_stops_at_once(start, model):
    worker = await start()
    await until(lambda: worker.event("ready"))
    running = asyncio.create_task(worker.remote.post("/held"))
    await until(lambda: model.answering == 1)
    worker.process.send_signal(signal.SIGTERM)
    await until(lambda: worker.event("draining"))
    worker.process.send_signal(signal.SIGTERM)
    assert (await worker.remote.post("/echo")).json()["error"] == "worker_draining"
    assert not running.done()
    worker.process.send_signal(signal.SIGINT)
    assert await worker.process.wait() == 0
    assert (await running).json()["error"] == "worker_ending"


async def test_logs_are_json_lines_without_secrets(start):
    worker = await start(STOKER_LOG_REQUESTS="true")
    await until(lambda: worker.event("ready"))
    auth = worker.remote.auth()
    await worker.remote.post("/echo?api_key=sk-ep-secret", auth=auth)
    request = await until(lambda: worker.event("request"))
    assert request["path"] == "/echo"
    text = json.dumps(worker.events)
    for secret in (TOKEN, auth["ticket"], "sk-ep-secret"):
        assert secret not in text
    assert all({"event", "level", "timestamp", "component"} <= event.keys() for event in worker.events)


async def test_use_ssl_serves_tls_and_reports_an_https_address(start, engine, tmp_path):
    certificate, key = self_signed(tmp_path)
    trust = ssl.create_default_context(cafile=str(certificate))
    plain = free_port()
    worker = await start(
        USE_SSL="true", STOKER_TLS_CERTIFICATE=str(certificate), STOKER_TLS_KEY=str(key),
        WORKER_HTTP_PORT=str(plain), scheme="https", verify=trust,
    )  # fmt: skip
    await until(lambda: worker.event("ready"))
    assert (await worker.remote.post("/echo", {"n": 1})).json() == {"n": 1}
    await until(lambda: engine.statuses)
    assert engine.statuses[-1]["url"].startswith("https://127.0.0.1:")
    # The plain port serves only /session/end, for the model server on this machine.
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{plain}", trust_env=False) as client:
        assert (await client.post("/session/end", json={"session_id": "x"})).status_code == 400
        assert (await client.post("/echo", json={})).status_code == 404


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"MASTER_TOKEN": ""}, "MASTER_TOKEN"),
        ({"MASTER_TOKEN": "no-token"}, "MASTER_TOKEN"),
        ({"CONTAINER_ID": "C.17"}, "CONTAINER_ID"),
        ({"REPORT_ADDR": "run.example"}, "REPORT_ADDR"),
        ({"REPORT_ADDR": ""}, "REPORT_ADDR"),
        ({"WORKER_PORT": "http"}, "WORKER_PORT"),
        ({"STOKER_DRAIN_SECONDS": "long"}, "STOKER_DRAIN_SECONDS"),
    ],
)
def test_an_invalid_environment_is_an_error_message_and_exit_status_2(tmp_path, variables, message):
    environment = {
        "PATH": os.environ["PATH"], "MODEL_PORT": "1", "REPORT_ADDR": "http://127.0.0.1:1", "CONTAINER_ID": "17",
        "WORKER_PORT": "0", "MASTER_TOKEN": TOKEN,
    } | variables  # fmt: skip
    ended = subprocess.run(
        [sys.executable, "-c", SMALL],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        timeout=20,
        check=False,
    )
    assert ended.returncode == 2
    assert message in json.loads(ended.stdout)["error"]
    assert b"Traceback" not in ended.stdout + ended.stderr


def test_a_worker_that_cannot_listen_logs_it_and_exits_1(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        environment = {
            "PATH": os.environ["PATH"], "MODEL_PORT": "1", "REPORT_ADDR": "http://127.0.0.1:1",
            "CONTAINER_ID": "17", "WORKER_PORT": str(taken.getsockname()[1]), "MASTER_TOKEN": TOKEN,
        }  # fmt: skip
        ended = subprocess.run(
            [sys.executable, "-c", SMALL],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            timeout=20,
            check=False,
        )
    assert ended.returncode == 1
    assert b"cannot_listen" in ended.stdout
    assert b"Traceback" not in ended.stdout + ended.stderr


async def test_the_example_serves_and_survives_a_crash_of_its_model(engine, tmp_path):
    model_port = free_port()
    environment = {
        "PATH": os.environ["PATH"], "STOKER_PYTHON": sys.executable, "REPORT_ADDR": engine.url,
        "CONTAINER_ID": "17", "WORKER_PORT": "0", "MODEL_PORT": str(model_port), "MASTER_TOKEN": TOKEN,
    }  # fmt: skip
    script = Process(
        await asyncio.create_subprocess_exec(
            "nohup", "bash", str(EXAMPLE / "start.sh"), cwd=tmp_path, env=environment, stdout=subprocess.PIPE
        )
    )
    try:
        await until(lambda: engine.statuses and engine.statuses[-1]["max_perf"] > 0, 30)
        port = script.event("listening")["port"]
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=20
        ) as client:
            remote = Remote(port, client)
            asked = {"prompt": "The stoker ", "max_tokens": 8, "seed": 1}
            answer = await remote.post("/v1/completions", asked)
            assert len(answer.json()["choices"][0]["text"]) == 32
            assert answer.json()["usage"]["completion_tokens"] == 8
            async with client.stream(
                "POST", "/v1/completions", json=remote.envelope(asked | {"stream": True})
            ) as stream:
                events = [line[6:] async for line in stream.aiter_lines() if line.startswith("data: ")]
            assert events[-1] == "[DONE]"
            text = "".join(json.loads(event)["choices"][0]["text"] for event in events[:-1])
            assert text == answer.json()["choices"][0]["text"]
            assert (await remote.post("/v1/completions", {"max_tokens": 0})).status_code == 400
            over = await remote.post("/v1/completions", {"max_tokens": 101}, cost=100)
            assert over.json()["error"] == "ticket_cost_exceeded"
            killed = kill_model(script.process.pid)
            await until(lambda: engine.statuses[-1]["error_msg"], 20)
            await until(lambda: engine.statuses[-1]["error_msg"] == "", 20)
            assert killed
            assert (await remote.post("/v1/completions", asked)).json()["choices"] == answer.json()["choices"]
            # A stopping machine sends SIGTERM to every process. Running requests are finished nevertheless.
            ids = [script.process.pid, *children(script.process.pid)]
            asked = {"max_tokens": 100, "stream": True}
            async with client.stream("POST", "/v1/completions", json=remote.envelope(asked)) as stream:
                lines = stream.aiter_lines()
                assert (await anext(lines)).startswith("data: ")
                for pid in ids:
                    os.kill(pid, signal.SIGTERM)
                rest = [line async for line in lines if line.startswith("data: ")]
            assert len(rest) == 100
            assert rest[-1] == "data: [DONE]"
        assert await asyncio.wait_for(script.process.wait(), 20) == 0
        await until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in ids))
        assert {path.name for path in tmp_path.iterdir()} >= {"model.log", ".has_benchmark.json"}
    finally:
        for pid in [script.process.pid, *children(script.process.pid)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        await script.process.wait()
        await script.reading


def children(pid):
    """Ids of all descendant processes."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[1]) == pid:
                found += [int(stat.parent.name), *children(int(stat.parent.name))]
    return found


def kill_model(pid):
    """Kill the model server under the start script."""
    for child in children(pid):
        with contextlib.suppress(OSError):
            if b"model_server.py" in Path(f"/proc/{child}/cmdline").read_bytes():
                os.kill(child, signal.SIGKILL)
                return child
    return None


def test_the_dependencies_are_the_documented_ones():
    project = tomllib.loads((ROOT / "pyworker" / "pyproject.toml").read_text())["project"]
    names = {re.split(r"[~>=<; ]", line)[0] for line in project["dependencies"]}
    assert names == {"stoker-wire[http1]", "pydantic", "msgspec", "nvidia-ml-py", "structlog", "uvloop"}
    pinned = set(
        re.findall(r"^([a-z0-9-]+)==", (ROOT / "requirements" / "pyworker.txt").read_text(), re.MULTILINE)
    )
    assert pinned == (names - {"stoker-wire[http1]"}) | {
        "httptools", "annotated-types", "pydantic-core", "typing-extensions", "typing-inspection",
    }  # fmt: skip


def bare_environment(folder):
    """Create an environment with the pinned requirements and the two packages. Returns its Python."""
    python = str(folder / "bin" / "python")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--require-hashes", "--no-compile",
         "--disable-pip-version-check", "-r", str(ROOT / "requirements" / "pyworker.txt")],
        check=True, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    site = next((folder / "lib").glob("python3*/site-packages"))
    (site / "stoker.pth").write_text(f"{ROOT / 'wire'}\n{ROOT / 'pyworker'}\n")
    unwanted = "('temporalio', 'aiohttp', 'cryptography', 'httpx', 'requests')"
    look = f"import importlib.util as u; print([n for n in {unwanted} if u.find_spec(n)])"
    assert subprocess.run([python, "-c", look], capture_output=True, check=True).stdout == b"[]\n"
    return python


@pytest.mark.timeout(90)
async def test_it_runs_in_a_bare_environment(start, tmp_path, engine):
    worker = await start(python=await asyncio.to_thread(bare_environment, tmp_path / "bare"))
    await until(lambda: worker.event("ready"), 20)
    assert (await worker.remote.post("/echo", {"n": 1})).json() == {"n": 1}
    await until(lambda: engine.finished)


def self_signed(folder):
    """A certificate for 127.0.0.1."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, LAUNCH)])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "instance.crt", folder / "instance.key"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return paths
