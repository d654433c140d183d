"""The published wheels install and import with their declared dependencies alone."""

import os
import subprocess
import sys
import tomllib
import venv
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
TRACER = "stoker_wire.tracing.tracer"
"""The one module that needs the extra `otel`."""


def project(room: str) -> dict:
    return tomllib.loads((ROOT / room / "pyproject.toml").read_text())["project"]


def test_the_wire_depends_on_pydantic_alone():
    assert project("wire")["dependencies"] == ["pydantic>=2.12"]


def test_the_client_depends_on_three_packages_and_three_extras():
    assert project("sdk")["dependencies"] == [
        "stoker-wire~=0.2.0",
        "httpx>=0.28",
        "pydantic>=2.12",
        "sniffio>=1.3",
    ]
    assert project("sdk")["optional-dependencies"] == {
        "temporal": ["temporalio>=1.35"],
        "cli": ["typer>=0.20", "rich>=14"],
        "otel": ["stoker-wire[otel]~=0.2.0"],
    }
    assert project("sdk")["scripts"] == {"stoker": "stoker.cli:main"}


def test_the_worker_depends_on_five_packages_and_the_wire_s_and_one_extra():
    """The worker shares an environment with the user's pinned packages, so the list is short and fixed."""
    assert project("pyworker")["dependencies"] == [
        "stoker-wire[http1]~=0.2.0",
        "pydantic>=2.12",
        "msgspec>=0.21",
        "nvidia-ml-py>=13",
        "structlog>=25",
        "uvloop>=0.22; platform_python_implementation == 'CPython' and sys_platform != 'win32'",
    ]
    assert project("pyworker")["optional-dependencies"] == {"otel": ["stoker-wire[otel]~=0.2.0"]}
    assert project("pyworker")["scripts"] == {"stoker-pyworker": "stoker_pyworker.presets.__main__:main"}


def test_the_published_packages_install_exactly_these_distributions():
    """A new dependency must be a decision, because users install it."""
    validation = {"pydantic", "pydantic-core", "annotated-types", "typing-extensions", "typing-inspection"}
    http = {"httpx", "httpcore", "h11", "anyio", "idna", "certifi"}
    assert closure("stoker-wire") == {"stoker-wire"} | validation
    assert closure("stoker") == {"stoker", "stoker-wire", "sniffio"} | validation | http
    worker = {"httptools", "msgspec", "nvidia-ml-py", "structlog", "uvloop"}
    assert closure("stoker-pyworker") == {"stoker-pyworker", "stoker-wire"} | validation | worker


@pytest.fixture(scope="module")
def wheels(tmp_path_factory) -> list[Path]:
    """The three wheels, built as for an index."""
    folder = tmp_path_factory.mktemp("wheels")
    for room in ("wire", "sdk", "pyworker"):
        subprocess.run(
            [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
            cwd=ROOT / room,
            check=True,
            capture_output=True,
            timeout=100,
        )
    return sorted(folder.glob("*.whl"))


def test_a_wheel_holds_its_package_and_nothing_else(wheels):
    tops = {}
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            names = archive.namelist()
        tops[wheel.name.partition("-")[0]] = {
            name.partition("/")[0] for name in names if ".dist-info/" not in name
        }
        assert any(name.endswith("py.typed") for name in names)
    assert tops == {
        "stoker": {"stoker"},
        "stoker_wire": {"stoker_wire"},
        "stoker_pyworker": {"stoker_pyworker"},
    }


def closure(*names: str) -> set[str]:
    """These distributions with all their declared dependencies, and those of the extras that these name."""
    found: set[tuple[str, str]] = set()
    todo = [(name, "") for name in names]
    while todo:
        each = todo.pop()
        if each in found:
            continue
        found.add(each)
        name, extra = each
        for line in metadata.requires(name) or []:
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                needed = requirement.name.lower().replace("_", "-")
                todo += [(needed, wanted) for wanted in ("", *requirement.extras)]
    return {name for name, _ in found}


@pytest.fixture(scope="module")
def bare(wheels, tmp_path_factory) -> Path:
    """The Python of an environment with the client's wheel and its declared dependencies."""
    return environment(tmp_path_factory.mktemp("bare"), wheels, "stoker")


@pytest.fixture(scope="module")
def bare_worker(wheels, tmp_path_factory) -> Path:
    """The Python of an environment with the worker's wheel and its declared dependencies."""
    return environment(tmp_path_factory.mktemp("bare_worker"), wheels, "stoker-pyworker")


def environment(home: Path, wheels: list[Path], part: str) -> Path:
    """An environment with that part and its declared dependencies, linked from this one without network."""
    needed = closure(part)
    venv.create(home, symlinks=True, with_pip=False)
    site = Path(
        subprocess.run(
            [home / "bin" / "python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
        ).stdout.strip()
    )
    for wheel in wheels:
        if wheel.name.partition("-")[0].replace("_", "-") in needed:
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(site)
    for name in needed - {"stoker", "stoker-wire", "stoker-pyworker"}:
        for file in metadata.files(name) or []:
            source = Path(str(file.locate()))
            if ".." in file.parts or not source.is_file() or file.suffix == ".pyc":
                continue
            target = site / file
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.exists():
                target.symlink_to(source)
    return home / "bin" / "python"


def run(python: Path, code: str) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "COV"))}
    return subprocess.run(
        [python, "-I", "-c", code],
        check=False,
        capture_output=True,
        text=True,
        timeout=100,
        env=environ,
        cwd="/",
    )


def test_the_client_imports_with_its_declared_dependencies_alone(bare):
    done = run(
        bare, "import stoker, stoker_wire.security.ticket; print(stoker.Serverless('k', url='http://e:1'))"
    )
    assert (done.stdout, done.stderr) == ("<Serverless http://e:1>\n", "")


def test_every_module_that_needs_no_extra_imports_bare(bare):
    code = (
        f"import importlib, pkgutil, stoker, stoker_wire\n_TRACER = {TRACER!r}\n"
        "for package in (stoker, stoker_wire):\n"
        "    for found in pkgutil.walk_packages(package.__path__, package.__name__ + '.'):\n"
        "        if not found.name.startswith(('stoker.cli.', 'stoker.control', 'stoker_wire.http1.', _TRACER)):\n"
        "            importlib.import_module(found.name)\n"
        "print('all')\n"
    )
    done = run(bare, code)
    assert (done.stdout, done.stderr) == ("all\n", "")


def test_every_module_of_the_worker_imports_bare(bare_worker):
    code = (
        f"import importlib, pkgutil, sys, stoker_pyworker, stoker_wire\n_TRACER = {TRACER!r}\n"
        "for package in (stoker_pyworker, stoker_wire):\n"
        "    for found in pkgutil.walk_packages(package.__path__, package.__name__ + '.'):\n"
        "        if found.name != _TRACER:\n"
        "            importlib.import_module(found.name)\n"
        "print(sorted({name.split('.')[0] for name in sys.modules} & {'stoker', 'temporalio', 'httpx', 'aiohttp'}))\n"
    )
    done = run(bare_worker, code)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_a_missing_extra_is_named(bare):
    done = run(bare, "from stoker.cli import main; main()")
    assert done.returncode == 2
    assert 'pip install "stoker[cli]"' in done.stderr
    assert "Traceback" not in done.stderr
    done = run(bare, "import stoker.control")
    assert 'pip install "stoker[temporal]"' in done.stderr


def test_a_worker_that_cannot_make_the_traces_it_is_asked_for_ends_with_one_sentence(
    bare_worker, monkeypatch
):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")
    monkeypatch.setenv("UNSECURED", "true")
    done = run(
        bare_worker,
        "from stoker_pyworker import BenchmarkConfig, HandlerConfig, Worker, WorkerConfig\n"
        "benchmark = BenchmarkConfig(dataset=[{}])\n"
        "handlers = [HandlerConfig(route='/v1/completions', benchmark_config=benchmark)]\n"
        "Worker(WorkerConfig(model_server_url='http://127.0.0.1', model_server_port=1, handlers=handlers)).run()\n",
    )
    assert done.returncode == 2
    assert 'pip install \\"stoker-pyworker[otel]\\"' in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_importing_the_client_does_not_import_temporal():
    done = run(
        Path(sys.executable),
        "import sys, stoker; print(any(m.split('.')[0] == 'temporalio' for m in sys.modules))",
    )
    assert (done.stdout, done.stderr) == ("False\n", "")


def test_the_controllers_wheel_and_source_have_every_package_of_the_controller():
    """A new folder of the controller that is missing there fails only when it is installed."""
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    own = set(tool["mypy"]["packages"]) - {"stoker", "stoker_wire", "stoker_pyworker"}
    targets = tool["hatch"]["build"]["targets"]
    assert own | {"hosts", "webserver"} == set(targets["wheel"]["packages"])
    assert own <= set(targets["sdist"]["only-include"])
