"""Wheels and source distributions build, install into empty environments of every supported Python, and run."""

import json
import os
import socket
import subprocess
import sys
import tarfile
import time
import tomllib
import zipfile
from email.parser import HeaderParser
from pathlib import Path

import httpx
import pytest
import yaml

ROOT = Path(__file__).parents[2]
PROJECTS = {"stoker-wire": "wire", "stoker": "sdk", "stoker-pyworker": "pyworker", "stoker-controller": "."}
PYTHONS = ("3.11", "3.12", "3.13")
UV = str(Path(sys.executable).with_name("uv"))

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]


def command(*arguments: str, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    """The program's output; a failure shows its errors."""
    done = subprocess.run(
        arguments,
        check=False,
        capture_output=True,
        text=True,
        timeout=600,
        cwd=cwd,
        env=env or bare_environment(),
    )
    assert done.returncode == 0, f"{' '.join(arguments)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def bare_environment(**more: str) -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "STOKER", "VIRTUAL"))
    }
    return kept | more


@pytest.fixture(scope="module")
def dist(tmp_path_factory) -> Path:
    """Source distributions, and wheels built from them."""
    folder = tmp_path_factory.mktemp("dist")
    for project in PROJECTS.values():
        command(UV, "build", "--quiet", "--out-dir", str(folder), str(ROOT / project))
    return folder


def file_of(dist: Path, name: str, pattern: str) -> Path:
    (found,) = dist.glob(f"{name.replace('-', '_')}-[0-9]*{pattern}")
    return found


def interpreter(version: str) -> str:
    """A Python of this version: pyenv's, or one that uv finds."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    if found := sorted(pyenv.glob(f"{version}.*/bin/python")):
        return str(found[-1])
    find = [UV, "python", "find", "--no-python-downloads", version]
    done = subprocess.run(
        find, check=False, capture_output=True, text=True, timeout=60, cwd="/", env=bare_environment()
    )
    if done.returncode != 0:
        pytest.skip(f"no Python {version} on this machine")
    return done.stdout.strip()


@pytest.mark.parametrize("name", PROJECTS)
def test_wheel_and_source_carry_licence_and_metadata(dist, name):
    with zipfile.ZipFile(file_of(dist, name, ".whl")) as wheel:
        files = wheel.namelist()
        (metadata,) = (wheel.read(each).decode() for each in files if each.endswith(".dist-info/METADATA"))
    head = HeaderParser().parsestr(metadata)
    assert head["License-Expression"] == "Apache-2.0"
    assert head["Requires-Python"] == ">=3.11"
    assert head["Summary"]
    assert head.get_payload().strip(), "the readme is the page on the index"
    assert {f"Programming Language :: Python :: {each}" for each in PYTHONS} <= set(
        head.get_all("Classifier")
    )
    assert any(each.endswith(".dist-info/licenses/LICENSE") for each in files)
    with tarfile.open(file_of(dist, name, ".tar.gz")) as source:
        names = {each.partition("/")[2] for each in source.getnames()}
    assert {"LICENSE", "README.md", "pyproject.toml"} <= names
    assert not {each.partition("/")[0] for each in names} & {"tests", "benchmarks", "docs", ".venv"}


def test_all_parts_have_one_version_and_need_each_other_in_it():
    """Parts of one release are tested together, so an older wire must not be installed beside a newer engine."""
    projects = {
        name: tomllib.loads((ROOT / folder / "pyproject.toml").read_text())["project"]
        for name, folder in PROJECTS.items()
    }
    (version,) = {project["version"] for project in projects.values()}
    needed = {
        line for project in projects.values() for line in project["dependencies"] if line.startswith("stoker")
    }
    names = ("stoker", "stoker-wire", "stoker-wire[http1]", "stoker-pyworker")
    assert needed == {f"{name}~={version}" for name in names}


def test_every_project_has_the_licence_of_the_repository():
    assert {(ROOT / folder / "LICENSE").read_bytes() for folder in PROJECTS.values()} == {
        (ROOT / "LICENSE").read_bytes()
    }


IMPORT_ALL = """
import importlib, pkgutil, sys
for name in sys.argv[1].split(","):
    package = importlib.import_module(name)
    for found in pkgutil.walk_packages(package.__path__, name + "."):
        if not found.name.endswith("__main__") and not found.name.startswith(tuple(sys.argv[2].split(","))):
            importlib.import_module(found.name)
print("imported")
"""

TRACER = "stoker_wire.tracing.tracer"
ALONE = {
    "stoker-wire": ("stoker-wire", "stoker_wire", f"stoker_wire.http1.,{TRACER}"),
    "stoker-wire-http1": ("stoker-wire[http1]", "stoker_wire", TRACER),
    "stoker-wire-otel": ("stoker-wire[http1,otel]", "stoker_wire", "-"),
    "stoker": ("stoker", "stoker,stoker_wire", f"stoker.cli.,stoker.control,stoker_wire.http1.,{TRACER}"),
    "stoker-cli": ("stoker[cli,temporal]", "stoker", "-"),
    "stoker-pyworker": ("stoker-pyworker", "stoker_pyworker", "-"),
    "stoker-controller": (
        "stoker-controller",
        "policy,controller,webserver,market,hosts,activities,workflows,engine,dashboard,simulation,run",
        "hosts.agent.init",
    ),
}


@pytest.mark.parametrize("version", PYTHONS)
@pytest.mark.parametrize("part", ALONE)
def test_each_part_installs_alone_and_imports(dist, tmp_path, part, version):
    requirement, packages, without = ALONE[part]
    venv = tmp_path / "venv"
    command(UV, "venv", "--quiet", "--python", interpreter(version), str(venv))
    python = str(venv / "bin" / "python")
    command(UV, "pip", "install", "--quiet", "--python", python, "--find-links", str(dist), requirement)
    assert command(python, "-I", "-c", IMPORT_ALL, packages, without, cwd=tmp_path) == "imported\n"
    if part == "stoker-cli":
        assert command(str(venv / "bin" / "stoker"), "--version", cwd=tmp_path).startswith("stoker ")
    if part == "stoker-pyworker":
        program = str(venv / "bin" / "stoker-pyworker")
        assert "vllm" in command(program, "vllm", "--model", "org/model", "--dry-run", cwd=tmp_path)
    if part == "stoker-controller":
        assert command(str(venv / "bin" / "stokerd"), "--version", cwd=tmp_path).startswith("stokerd ")
        ask = "from run.settings import load_settings as l; s = l(None); print(s.state_dir, s.host_market.templates[0].name)"
        assert command(python, "-I", "-c", ask, cwd=tmp_path) == f"{tmp_path}/.stoker text-model\n"


APP = """
import http.server, json, os
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"served": "by the app"}).encode())
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""


def test_a_deployment_runs_from_a_tool_installed_into_an_empty_home(dist, tmp_path):
    """`uv tool install`, `stokerd dev`, an answer of the example model, and `stoker up` with the lines that it prints."""
    home, work = tmp_path / "home", tmp_path / "work"
    home.mkdir()
    work.mkdir()
    environ = bare_environment(
        HOME=str(home), PATH=f"{home}/.local/bin:/usr/bin:/bin", UV_CACHE_DIR=uv_cache()
    )
    install = [UV, "tool", "install", "--quiet", "--python", interpreter("3.12"), "--find-links", str(dist)]
    command(*install, "stoker-controller[demo]", env=environ, cwd=work)
    assert sorted(each.name for each in (home / ".local" / "bin").iterdir()) == ["stoker", "stokerd"]
    url = settings_with_free_ports(work)
    with (work / "dev.log").open("w") as log:
        dev = subprocess.Popen(["stokerd", "dev"], cwd=work, env=environ, stdout=log, stderr=log)
    try:
        wait_until_ready(url, dev)
        key = command("stokerd", "key", env=environ, cwd=work).strip()
        client = environ | {"STOKER_URL": url, "STOKER_API_KEY": key}
        command(
            "stoker", "endpoints", "create", "llm", "--min-workers", "1", "--max-workers", "1", env=client
        )
        command("stoker", "workergroups", "create", "llm", "--template-hash", "text-model", env=client)
        body = json.dumps({"prompt": "The lamp was lit and ", "max_tokens": 4})
        answer = command("stoker", "request", "llm", "/v1/completions", body, "--cost", "4", env=client)
        assert json.loads(answer)["usage"]["completion_tokens"] == 4
        (work / "app.py").write_text(APP)
        program = f"/usr/bin/env python3 '{work}/app.py'"
        up = ["stoker", "up", "http", "--name", "app", "--command", program, "--env", "MODEL_ROUTES=/predict"]
        said = command(*up, "--yes", env=environ, cwd=work)
        shell, python = said[said.index("export STOKER_URL") :].split("# Python", maxsplit=1)
        interpreter_of_tool = (
            home / ".local" / "share" / "uv" / "tools" / "stoker-controller" / "bin" / "python"
        )
        pasted = f"{shell}\n{interpreter_of_tool} - <<'END'\n# Python{python}\nEND\n"
        shown = command("bash", "-euc", pasted, env=environ, cwd=work)
        assert shown.count("by the app") == 2, "curl's answer and the SDK's"
    finally:
        dev.terminate()
        assert dev.wait(timeout=60) == 0, (work / "dev.log").read_text()[-2000:]


def uv_cache() -> str:
    return command(UV, "cache", "dir").strip()


def wait_until_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while not is_ready(url):
        assert process.poll() is None, "the deployment ended at its start"
        assert time.monotonic() < deadline
        time.sleep(0.1)


def is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=5, trust_env=False).is_success
    except httpx.TransportError:
        return False


def settings_with_free_ports(folder: Path) -> str:
    """Write the default settings with ports that no other deployment of this machine has; returns the engine's URL."""
    settings = yaml.safe_load((ROOT / "temporal-dev.yaml").read_text())
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(5)]
    temporal, ui, engine, market, page = (each.getsockname()[1] for each in sockets)
    for each in sockets:
        each.close()
    settings["temporal"] |= {"port": temporal, "ui_port": ui}
    settings["engine"]["port"] = engine
    settings["dashboard"]["port"] = page
    settings["host_market"] |= {"port": market, "instance_port_min": 31000, "instance_port_max": 31999}
    (folder / "temporal-dev.yaml").write_text(yaml.safe_dump(settings))
    return f"http://127.0.0.1:{engine}"
