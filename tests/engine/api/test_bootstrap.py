"""The worker from the engine: bound to a launch's own path, checked by hash, installed into an environment of its own."""

import asyncio
import hashlib
import io
import os
import re
import sys
import zipfile
from pathlib import Path

import pytest

from activities.signing import report_address, sealed_signing_key
from run.worker_package import worker_package
from tests.engine.conftest import SECRET, Stage
from tests.engine.fake_endpoint_workflow import until

LAUNCH = "aaaaaaaaaaaa"
UV = Path(sys.executable).with_name("uv")
PACKAGE = worker_package()


@pytest.fixture(scope="module")
def sealed() -> str:
    return sealed_signing_key(SECRET, LAUNCH)


async def fetch(stage: Stage, path: str) -> tuple[int, bytes]:
    async with stage.http.get(f"{stage.server.url}{path}") as reply:
        return reply.status, await reply.read()


async def test_the_script_names_each_file_with_its_hash_and_the_engine_serves_them(
    bare_stage: Stage, sealed: str
) -> None:
    await bare_stage.start_engine(worker_package=PACKAGE)
    own = f"/w/{LAUNCH}/{sealed}/worker"
    status, script = await fetch(bare_stage, f"{own}/bootstrap.sh")
    assert status == 200
    named = re.findall(rb"([0-9a-f]{64})  ([\w.-]+)", script)
    assert sorted(name.decode() for _, name in named) == sorted(PACKAGE.files)
    for digest, name in named:
        status, data = await fetch(bare_stage, f"{own}/{name.decode()}")
        assert (status, hashlib.sha256(data).hexdigest()) == (200, digest.decode())
    for name, data in PACKAGE.files.items():
        if name.endswith(".whl"):
            with zipfile.ZipFile(io.BytesIO(data)) as wheel:
                assert wheel.testzip() is None
                assert any(each.endswith("/py.typed") for each in wheel.namelist())


async def test_equal_packages_give_equal_files() -> None:
    """Several engines behind one address must serve what the script of any of them names."""
    assert worker_package() == PACKAGE


@pytest.mark.parametrize("name", ["bootstrap.sh", "requirements-otel.txt"])
async def test_only_a_launch_of_this_deployment_gets_them(bare_stage: Stage, sealed: str, name: str) -> None:
    await bare_stage.start_engine(worker_package=PACKAGE)
    other = sealed_signing_key(b"another deployment's secret 32 b", LAUNCH)
    for path in (
        f"/worker/{name}",
        f"/w/bbbbbbbbbbbb/{sealed}/worker/{name}",
        f"/w/{LAUNCH}/{other}/worker/{name}",
    ):
        status, _ = await fetch(bare_stage, path)
        assert status == 404, path
    status, _ = await fetch(bare_stage, f"/w/{LAUNCH}/{sealed}/worker/absent.whl")
    assert status == 404


async def test_an_engine_without_the_package_says_so(bare_stage: Stage, sealed: str) -> None:
    await bare_stage.start_engine()
    status, body = await fetch(bare_stage, f"/w/{LAUNCH}/{sealed}/worker/bootstrap.sh")
    assert status == 404
    assert b"bring it in the image" in body


async def bootstrap(address: str, folder: Path, *arguments: str, **environ: str) -> tuple[int, str, str]:
    """The start line of a rented machine, with an empty home."""
    line = f'curl -fsSL "{address}/worker/bootstrap.sh" | bash -s -- {" ".join(arguments)}'
    process = await asyncio.create_subprocess_exec(
        "bash",
        "-o",
        "pipefail",
        "-c",
        line,
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={"HOME": str(folder), "PATH": "/usr/bin:/bin", "REPORT_ADDR": address, **environ},
    )
    out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


WORKER_FILE = """
import sys, stoker_pyworker, stoker_wire
print(sys.prefix, sys.argv[1:])
"""


def kinds() -> list:
    """Machines with uv, with a plain Python, and with Debian's Python without the package python3-venv."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    plain = [str(each) for each in sorted(pyenv.glob("3.12.*/bin"))[-1:]]
    kinds = [("uv", "uv", ""), *(("venv", "plain", each) for each in plain)]
    kinds += [("no-venv", "no venv", each) for each in plain]
    return [pytest.param(kind, folder, id=name) for name, kind, folder in kinds]


NO_VENV = """#!/bin/sh
case "$*" in *"import venv, ensurepip"*|"-m venv "*) echo "no module ensurepip" >&2; exit 1;; esac
exec {python} "$@"
"""


async def test_a_script_that_is_cut_off_runs_nothing(bare_stage: Stage, sealed: str, tmp_path: Path) -> None:
    await bare_stage.start_engine(worker_package=PACKAGE)
    _, script = await fetch(bare_stage, f"/w/{LAUNCH}/{sealed}/worker/bootstrap.sh")
    said = []
    for missing in range(1, 21):
        process = await asyncio.create_subprocess_exec(
            *("bash", "-s", "--", "vllm"),
            env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
            stdin=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        _, err = await process.communicate(script[:-missing])
        said.append(b"stoker bootstrap: " in err)
    assert said == [True] + [False] * 19, "without the last line's end it is whole"


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("kind", "folder"), kinds())
async def test_an_empty_machine_gets_the_worker_once_and_keeps_its_own_packages(
    bare_stage: Stage, sealed: str, tmp_path: Path, kind: str, folder: str
) -> None:
    server = await bare_stage.start_engine(worker_package=PACKAGE)
    address = report_address(server.url, LAUNCH, sealed)
    (tmp_path / "worker.py").write_text(WORKER_FILE)
    (tmp_path / "bin").mkdir()
    if kind == "uv":
        (tmp_path / "bin" / "uv").symlink_to(UV)
    if kind == "no venv":
        for name in ("python3.13", "python3.12", "python3.11", "python3"):
            (tmp_path / "bin" / name).write_text(NO_VENV.format(python=f"{folder}/python3"))
            (tmp_path / "bin" / name).chmod(0o755)
    path = f"{folder if kind == 'plain' else tmp_path / 'bin'}:/usr/bin:/bin"
    # An image's PYTHONPATH with another pydantic must not reach the worker.
    (tmp_path / "image").mkdir()
    (tmp_path / "image" / "pydantic.py").write_text("raise SystemExit('the packages of the image')")
    environ = {
        "PATH": path,
        "PYTHONPATH": str(tmp_path / "image"),
        "SSL_CERT_FILE": os.environ.get("SSL_CERT_FILE", ""),
    }
    environ = {name: value for name, value in environ.items() if value} | {
        name: value for name, value in os.environ.items() if name.startswith(("PIP_", "UV_"))
    }
    code, out, err = await bootstrap(address, tmp_path, "worker.py", "--flag", **environ)
    assert code == 0, err
    assert out == f"{tmp_path}/.stoker-worker/{PACKAGE.version} ['--flag']\n"
    assert "installing stoker-pyworker" in err
    code, out, err = await bootstrap(address, tmp_path, "worker.py", **environ)
    assert (code, err) == (0, ""), "a second start installs nothing"
    (tmp_path / "worker.py").write_text(f"import stoker_wire.tracing.tracer\n{WORKER_FILE}")
    asking = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}
    code, out, err = await bootstrap(address, tmp_path, "worker.py", **environ, **asking)
    assert (code, out) == (0, f"{tmp_path}/.stoker-worker/{PACKAGE.version}-otel []\n"), err


async def test_a_setting_that_no_machine_can_use_reaches_the_engine_as_such(
    bare_stage: Stage, tmp_path: Path
) -> None:
    server = await bare_stage.start_engine(worker_package=PACKAGE)
    endpoint = await bare_stage.endpoint()
    double = endpoint.worker(LAUNCH)
    await endpoint.script(groups=[1], members=[double.member(s="model_loading")])
    installed = tmp_path / ".stoker-worker" / PACKAGE.version
    (installed / "bin").mkdir(parents=True)
    (installed / ".complete").touch()
    python = installed / "bin" / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o700)
    code, _, err = await bootstrap(
        report_address(server.url, LAUNCH, sealed_signing_key(SECRET, LAUNCH)),
        tmp_path,
        "vllm",
        MASTER_TOKEN=double.token,
        CONTAINER_ID=str(double.instance_id),
        PUBLIC_IPADDR=f"10.0.0.{double.instance_id % 250 + 1}",
        VAST_TCP_PORT_3000="3000",
    )
    assert (code, "MODEL_NAME (--model): expected" in err) == (3, True)
    known = server.engine.directory.named(endpoint.name).worker(LAUNCH)
    await until(lambda: known.report.error_everywhere, "no other machine can help")
    assert known.report.error.startswith("bootstrap: MODEL_NAME (--model): expected")
    assert known.metrics().error_everywhere


@pytest.fixture
def without_index(tmp_path: Path) -> dict[str, str]:
    """Variables of a machine that has uv, reaches no package index, and tries once."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "uv").symlink_to(UV)
    return {
        "PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin",
        "STOKER_BOOTSTRAP_ATTEMPTS": "1",
        "UV_DEFAULT_INDEX": "http://127.0.0.1:9/simple",
        "UV_HTTP_RETRIES": "0",
        "UV_CACHE_DIR": str(tmp_path / "cache"),
    }


async def test_a_failure_names_the_step_and_reaches_the_engine(
    bare_stage: Stage, tmp_path: Path, without_index: dict[str, str]
) -> None:
    server = await bare_stage.start_engine(worker_package=PACKAGE)
    endpoint = await bare_stage.endpoint()
    double = endpoint.worker(LAUNCH)
    await endpoint.script(groups=[1], members=[double.member()])
    address = report_address(server.url, LAUNCH, sealed_signing_key(SECRET, LAUNCH))
    code, _, err = await bootstrap(
        address,
        tmp_path,
        "vllm",
        **without_index,
        MASTER_TOKEN=double.token,
        CONTAINER_ID=str(double.instance_id),
        PUBLIC_IPADDR=f"10.0.0.{double.instance_id % 250 + 1}",
        VAST_TCP_PORT_3000="3000",
    )
    assert code == 3
    assert "the installation of the worker's packages failed" in err
    assert "Does this machine reach the package index?" in err
    known = server.engine.directory.named(endpoint.name).worker(LAUNCH)
    await until(
        lambda: known.report.error.startswith("bootstrap: the installation"), "the engine has the failure"
    )


async def test_a_full_disk_is_named_beside_the_step(
    bare_stage: Stage, sealed: str, tmp_path: Path, without_index: dict[str, str]
) -> None:
    server = await bare_stage.start_engine(worker_package=PACKAGE)
    (tmp_path / "bin" / "df").write_text(
        "#!/bin/sh\necho header\necho /dev/vda 2097152 2095104 2048 100% /\n"
    )
    (tmp_path / "bin" / "df").chmod(0o755)
    code, _, err = await bootstrap(
        report_address(server.url, LAUNCH, sealed), tmp_path, "vllm", **without_index
    )
    assert code == 3
    last = err.strip().splitlines()[-1]
    assert f"only 2 MiB are free in {tmp_path}/.stoker-worker, rent with a larger disk" in last
    assert "the installation of the worker's packages failed" in last


async def test_a_file_that_was_changed_on_the_way_is_not_installed(
    bare_stage: Stage, sealed: str, tmp_path: Path
) -> None:
    server = await bare_stage.start_engine(worker_package=PACKAGE)
    address = report_address(server.url, LAUNCH, sealed)
    status, script = await fetch(bare_stage, f"/w/{LAUNCH}/{sealed}/worker/bootstrap.sh")
    assert status == 200
    changed = re.sub(rb"[0-9a-f]{64}", b"0" * 64, script)
    (tmp_path / "changed.sh").write_bytes(changed)
    process = await asyncio.create_subprocess_exec(
        "bash",
        str(tmp_path / "changed.sh"),
        "vllm",
        stderr=asyncio.subprocess.PIPE,
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "REPORT_ADDR": address},
    )
    _, err = await process.communicate()
    assert process.returncode == 3
    assert b"does not have the expected SHA-256" in err
    assert not (tmp_path / ".stoker-worker" / PACKAGE.version).exists()
