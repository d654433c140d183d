"""Ollama's launcher with a server that answers as Ollama's documentation says."""

import os
import subprocess
import sys
import textwrap

import pytest

from stoker_pyworker.presets.__main__ import build
from tests.pyworker.model.test_supervisor import port  # noqa: F401 - a fixture

OLLAMA = textwrap.dedent("""
    import http.server, json, os, pathlib, signal, sys, time
    go_on = pathlib.Path(sys.argv[0]).with_name("go on")
    class Handler(http.server.BaseHTTPRequestHandler):
        def say(self, **state):
            self.wfile.write(json.dumps(state).encode() + b"\\n")
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.say(version="0.14.0")
        def do_POST(self):
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()
            if self.path == "/api/generate":
                return self.say(done=True)
            self.say(status="pulling manifest")
            if asked["model"] == "nope":
                return self.say(error="pull model manifest: file does not exist")
            self.say(status="pulling 970aa74c0a90", total=4, completed=1)
            while not go_on.exists():
                time.sleep(0.01)
            self.say(status="pulling 970aa74c0a90", total=4, completed=4)
            self.say(status="success")
        def log_message(self, *_):
            pass
    def stop(*_):
        raise SystemExit(0)
    signal.signal(signal.SIGTERM, stop)
    host, _, port = os.environ["OLLAMA_HOST"].rpartition(":")
    http.server.HTTPServer((host, int(port)), Handler).serve_forever()
""")


@pytest.fixture
def launch(tmp_path, port):  # noqa: F811
    started = []

    def start(model: str) -> subprocess.Popen[str]:
        program = tmp_path / "ollama.py"
        program.write_text(OLLAMA)
        server = build(
            "ollama",
            {"MODEL_NAME": model, "MODEL_PORT": str(port), "MODEL_COMMAND": f"{sys.executable} {program}"},
        ).server
        process = subprocess.Popen(
            server.command, env=os.environ | dict(server.env), stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.timeout(60)
def test_the_log_shows_the_download_while_it_lasts(launch, tmp_path):
    process = launch("qwen2.5:0.5b")
    lines = [process.stdout.readline().strip() for _ in range(2)]
    assert lines == ["stoker: pull: pulling manifest", "stoker: pull: pulling 970aa74c0a90"]
    (tmp_path / "go on").touch()
    lines = [process.stdout.readline().strip() for _ in range(2)]
    assert lines == ["stoker: pull: success", "stoker: the model is loaded"]
    process.terminate()
    assert process.wait(timeout=30) == 0


@pytest.mark.timeout(60)
def test_a_model_that_does_not_exist_ends_the_server(launch):
    process = launch("nope")
    assert (
        "stoker: the model cannot be pulled: pull model manifest: file does not exist"
        in process.stdout.read()
    )
    assert process.wait(timeout=30) == 1
