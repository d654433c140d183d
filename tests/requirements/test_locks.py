"""The locks pin and hash every package, match the requirements, and contain no index address."""

import re
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "requirements"
LOCKS = sorted(path.stem for path in FOLDER.glob("*.in"))
OURS = {"stoker", "stoker-wire", "stoker-pyworker"}
_HASH = re.compile(r"    --hash=sha256:[0-9a-f]{64}( \\)?")


def asked_in(lock: str) -> list[Requirement]:
    """The requirements of the `.in` file."""
    lines = (FOLDER / f"{lock}.in").read_text().splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def blocks(lock: str) -> list[list[str]]:
    """The `.txt` file, a list of lines per package: the pin, its hashes, its comments."""
    made: list[list[str]] = []
    for line in (FOLDER / f"{lock}.txt").read_text().splitlines():
        if line and not line.startswith((" ", "#")):
            made.append([])
        made[-1].append(line)
    return made


def pinned(lock: str) -> dict[str, list[tuple[Version, Requirement]]]:
    """Versions by name; a package may have several, with markers that exclude each other."""
    found: dict[str, list[tuple[Version, Requirement]]] = {}
    for block in blocks(lock):
        pin = Requirement(block[0].rstrip(" \\"))
        (one,) = pin.specifier
        assert one.operator == "=="
        found.setdefault(canonicalize_name(pin.name), []).append((Version(one.version), pin))
    return found


def test_every_input_has_its_lock():
    others = [
        "clients",
        "controller",
        "dev",
        "langchain",
        "litellm",
        "llamaindex",
        "models-llama",
        "models-vllm",
        "peer",
    ]
    assert [*others, "pyworker", "pyworker-otel"] == LOCKS
    assert sorted(path.stem for path in FOLDER.glob("*.txt")) == LOCKS


@pytest.mark.parametrize("lock", LOCKS)
def test_every_package_is_pinned_with_hashes(lock):
    assert len(blocks(lock)) > 5
    for block in blocks(lock):
        hashes = [line for line in block[1:] if not line.lstrip().startswith("#")]
        assert hashes, f"{block[0]} has no hash"
        assert all(_HASH.fullmatch(line) for line in hashes), block


@pytest.mark.parametrize("name", [f"{lock}.{kind}" for lock in LOCKS for kind in ("in", "txt")])
def test_no_lock_contains_an_index_address(name):
    text = (FOLDER / name).read_text()
    for forbidden in ("://", "--index", "--extra-index", "--find-links", "--trusted-host", " @ ", "-e "):
        assert forbidden not in text, f"{name} holds {forbidden!r}"


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_is_in_step_with_its_input(lock):
    pins = pinned(lock)
    for asked in asked_in(lock):
        versions = pins.get(canonicalize_name(asked.name))
        assert versions, f"{lock}.in asks for {asked.name}, {lock}.txt does not pin it: run `make lock`"
        for version, _ in versions:
            assert asked.specifier.contains(version, prereleases=True), (
                f"{lock}.in asks for {asked}, pinned is {version}: run `make lock`"
            )


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_contains_only_required_packages(lock):
    asked = {canonicalize_name(one.name) for one in asked_in(lock)}
    for block in blocks(lock):
        name = canonicalize_name(Requirement(block[0].rstrip(" \\")).name)
        assert name in asked or any("# via" in line for line in block), f"nobody asks for {name}"
        if name in asked:
            assert any(f"-r {lock}.in" in line for line in block), f"{name}: run `make lock`"


@pytest.mark.parametrize("lock", ["dev", "controller", "pyworker", "pyworker-otel"])
def test_what_pinned_packages_need_is_pinned_in_a_version_that_suits_them(lock):
    """Requirements from the metadata of installed packages; packages that are not installed are skipped."""
    pins = pinned(lock)
    looked = 0
    for name, versions in pins.items():
        try:
            installed = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        if Version(installed.version) not in {version for version, _ in versions}:
            continue
        for line in installed.requires or []:
            need = Requirement(line)
            if need.marker is not None and not need.marker.evaluate({"extra": ""}):
                continue
            looked += 1
            assert canonicalize_name(need.name) in pins, f"{name} needs {need}, {lock}.txt has none"
            assert any(
                need.specifier.contains(version, prereleases=True)
                for version, _ in pins[canonicalize_name(need.name)]
            ), f"{name} needs {need}"
    assert looked > 5


def project(path: str) -> dict:
    return tomllib.loads((ROOT / path).read_text())


def declared(lines: list[str]) -> dict[str, Requirement]:
    """Installed versions by name, without stoker's own packages, which are installed from this repository."""
    read = [Requirement(line) for line in lines]
    return {canonicalize_name(one.name): one for one in read if not OURS & {canonicalize_name(one.name)}}


def of_the_wire() -> list[str]:
    """What the wire needs with its HTTP server and client."""
    wire = project("wire/pyproject.toml")["project"]
    return wire["dependencies"] + wire["optional-dependencies"]["http1"]


def declared_in_lock(lock: str) -> dict[str, Requirement]:
    return {canonicalize_name(one.name): one for one in asked_in(lock)}


def same(one: Requirement, other: Requirement) -> bool:
    return (one.specifier, str(one.marker)) == (other.specifier, str(other.marker))


def test_the_controllers_lock_matches_its_project():
    wanted = declared(project("pyproject.toml")["project"]["dependencies"])
    client = project("sdk/pyproject.toml")["project"]
    wanted |= declared(client["dependencies"] + client["optional-dependencies"]["cli"])
    wanted |= declared(of_the_wire())
    wanted |= declared(project("wire/pyproject.toml")["project"]["optional-dependencies"]["otel"])
    asked = declared_in_lock("controller")
    assert asked.keys() == wanted.keys()
    assert all(same(asked[name], wanted[name]) for name in wanted)


def test_the_workers_lock_matches_its_project():
    wanted = declared(project("pyworker/pyproject.toml")["project"]["dependencies"] + of_the_wire())
    asked = declared_in_lock("pyworker")
    assert asked.keys() == wanted.keys()
    assert all(same(asked[name], wanted[name]) for name in wanted)


def test_the_workers_lock_with_traces_adds_the_extra():
    extra = declared(project("wire/pyproject.toml")["project"]["optional-dependencies"]["otel"])
    wanted = declared_in_lock("pyworker") | extra
    asked = declared_in_lock("pyworker-otel")
    assert asked.keys() == wanted.keys()
    assert all(same(asked[name], wanted[name]) for name in wanted)


def test_the_development_lock_asks_for_all_of_them_and_the_tools():
    root = project("pyproject.toml")
    wanted = declared(root["dependency-groups"]["dev"] + root["project"]["optional-dependencies"]["demo"])
    asked = declared_in_lock("dev")
    # editables: what hatchling needs to install our own packages in place.
    assert asked.keys() == wanted.keys() | declared_in_lock("controller").keys() | declared_in_lock(
        "pyworker"
    ).keys() | {"editables"}
    for name, one in {**declared_in_lock("controller"), **declared_in_lock("pyworker"), **wanted}.items():
        assert same(asked[name], one), f"{asked[name]} in dev.in, {one} elsewhere"


def test_what_several_locks_pin_they_pin_in_the_same_version():
    dev = pinned("dev")
    for lock in ("controller", "pyworker", "pyworker-otel"):
        for name, versions in pinned(lock).items():
            assert [version for version, _ in versions] == [version for version, _ in dev[name]], name


def test_this_environment_matches_the_lock():
    for name, versions in pinned("dev").items():
        due = [pin for _, pin in versions if pin.marker is None or pin.marker.evaluate()]
        for pin in due:
            assert pin.specifier.contains(metadata.version(name), prereleases=True), (
                f"{name} {metadata.version(name)} is installed, {pin} is locked: remove .venv and make again"
            )


@pytest.mark.long
def test_compiling_again_changes_nothing(tmp_path):
    """Needs the package index."""
    for file in FOLDER.iterdir():
        if file.is_file():
            shutil.copy(file, tmp_path / file.name)
    uv = Path(sys.executable).parent / "uv"
    subprocess.run(["sh", tmp_path / "compile.sh", uv], check=True, timeout=300)
    for lock in LOCKS:
        assert (tmp_path / f"{lock}.txt").read_text() == (FOLDER / f"{lock}.txt").read_text(), lock
