"""The container images build on a plain Debian, and run as an ordinary user with a read-only root."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BASE_VARIABLE = "STOKER_TEST_ROOTFS"
"""A root file system with Python 3.11, venv and ca-certificates; without it debootstrap makes one."""
RUNTIME = ["--runtime", "/usr/sbin/runc", "--cgroup-manager", "cgroupfs"]
LIMITS = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"]
"""podman's defaults are higher than a container in a container may set."""
BASE = "localhost/stoker-test-base:latest"
MIRROR = "http://deb.debian.org/debian"

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]


def podman(*arguments: str, check: bool = True, seconds_max: float = 900) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        ["podman", *RUNTIME, *arguments], check=False, capture_output=True, text=True, timeout=seconds_max
    )
    assert not check or done.returncode == 0, (
        f"podman {' '.join(arguments)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    )
    return done


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Iterator[str]:
    """A base image from a root file system, because registries cannot be reached from everywhere."""
    if shutil.which("podman") is None:
        pytest.skip("podman is not installed")
    root = os.environ.get(BASE_VARIABLE)
    if root is None:
        if shutil.which("debootstrap") is None or os.geteuid() != 0:
            pytest.skip("debootstrap as root is needed")
        root = str(tmp_path_factory.mktemp("rootfs"))
        packages = "--include=python3,python3-venv,ca-certificates"
        subprocess.run(
            ["debootstrap", "--variant=minbase", packages, "bookworm", root, MIRROR],
            check=True,
            capture_output=True,
            timeout=900,
        )
    packed = tmp_path_factory.mktemp("base") / "base.tar"
    subprocess.run(["tar", "-C", root, "-cf", str(packed), "."], check=True, timeout=300)
    podman("import", str(packed), BASE)
    packed.unlink()
    yield BASE
    podman("rmi", "--force", BASE, check=False)


def build(base: str, name: str) -> str:
    """The image, built with this machine's certificates and package index."""
    options = [
        "--layers=false",  # no images of the stages stay behind
        "--build-arg",
        f"BASE={base}",
        "--network",
        "host",
        "--volume",
        "/etc/ssl/certs:/etc/ssl/certs:ro",
    ]
    for variable in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_CERT", "HTTPS_PROXY", "HTTP_PROXY"):
        if value := os.environ.get(variable):
            options += ["--env", f"{variable}={value}"]
    tag = f"localhost/stoker-test-{name}:latest"
    podman("build", *options, "-f", str(ROOT / "deploy" / f"Containerfile.{name}"), "-t", tag, str(ROOT))
    return tag


def run(
    image: str, *arguments: str, volume: Path | None = None, folder: str = "", entry: str | None = None
) -> str:
    options = [
        "--rm",
        *LIMITS,
        "--read-only",
        "--network",
        "host",
        "--cap-drop",
        "ALL",
        "--security-opt",
        "no-new-privileges",
    ]
    if entry is not None:
        options += ["--entrypoint", entry]
    if volume is not None:
        volume.chmod(0o777)
        options += ["--volume", f"{volume}:{folder}"]
    return podman("run", *options, image, *arguments).stdout


def test_the_controllers_image_runs_as_a_user_with_a_read_only_root(base, tmp_path):
    image = build(base, "controller")
    try:
        (config,) = json.loads(podman("inspect", "--type", "image", image).stdout)
        assert config["Config"]["User"] == "10001:10001"
        assert "stokerd" in run(image, "--help")
        assert run(image, "-u", entry="id").strip() == "10001"
        printed = run(
            image,
            "init",
            "--config",
            "/var/lib/stoker/temporal-dev.yaml",
            volume=tmp_path,
            folder="/var/lib/stoker",
        )
        assert "wrote /var/lib/stoker/temporal-dev.yaml" in printed
        code = "import pathlib; pathlib.Path('/opt/stoker/x').write_text('x')"
        refused = podman(
            "run",
            "--rm",
            *LIMITS,
            "--network",
            "host",
            "--read-only",
            "--entrypoint",
            "python3",
            image,
            "-c",
            code,
            check=False,
        )
        assert refused.returncode != 0
        assert "Read-only file system" in refused.stderr or "Permission denied" in refused.stderr
        tools = podman(
            "run", "--rm", *LIMITS, "--network", "host", "--entrypoint", "ls", image, "/opt"
        ).stdout.split()
        assert tools == ["stoker"], "the environment of the build is not in the image"
    finally:
        podman("rmi", "--force", image, check=False)


def test_the_workers_image_keeps_the_packages_of_its_base(base):
    image = build(base, "worker")
    try:
        code = "import stoker_pyworker, sys; print(sys.prefix)"
        assert run(image, "-I", "-c", code, entry="/opt/stoker/bin/python").strip() == "/opt/stoker"
        absent = "import importlib.util as u; print(u.find_spec('stoker_pyworker'), u.find_spec('pydantic'))"
        assert run(image, "-I", "-c", absent, entry="/usr/bin/python3").strip() == "None None"
        assert run(image, "-u", entry="id").strip() == "10001"
    finally:
        podman("rmi", "--force", image, check=False)
