"""The worker as wheels, made from the packages that are installed beside this engine, so both have one version."""

import base64
import hashlib
import io
import zipfile
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import structlog

from engine.settings import WorkerPackage
from run.packaged_files import TRACED_WORKER_REQUIREMENTS, WORKER_REQUIREMENTS

log = structlog.get_logger(__name__)

_PARTS = {"stoker-wire": "stoker_wire", "stoker-pyworker": "stoker_pyworker"}
_WHEEL = "Wheel-Version: 1.0\nGenerator: stoker\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
_COPIED = ("METADATA", "entry_points.txt")
_DATE = (1980, 1, 1, 0, 0, 0)
"""Equal content gives equal files and hashes on every engine."""


def worker_package() -> WorkerPackage | None:
    """The files for `engine/api/bootstrap_api.py`; None if the worker is not installed here."""
    try:
        files = dict(_wheel(name, package) for name, package in _PARTS.items())
        files["requirements.txt"] = WORKER_REQUIREMENTS.read_bytes()
        files["requirements-otel.txt"] = TRACED_WORKER_REQUIREMENTS.read_bytes()
        return WorkerPackage(version=metadata.version("stoker-pyworker"), files=files)
    except (metadata.PackageNotFoundError, OSError) as fault:
        log.warning("worker_package_missing", error=str(fault)[:200])
        return None


def _wheel(name: str, package: str) -> tuple[str, bytes]:
    """File name and content of the wheel of an installed distribution."""
    found = metadata.distribution(name)
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise metadata.PackageNotFoundError(name)
    folder = Path(spec.submodule_search_locations[0])
    info = f"{package}-{found.version}.dist-info"
    files = {
        f"{package}/{file.relative_to(folder).as_posix()}": file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and "__pycache__" not in file.parts
    }
    files |= {
        f"{info}/{each}": text.encode() for each in _COPIED if (text := found.read_text(each)) is not None
    }
    files[f"{info}/WHEEL"] = _WHEEL.encode()
    record = "".join(f"{path},sha256={_digest(data)},{len(data)}\n" for path, data in files.items())
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, data in files.items():
            entry = zipfile.ZipInfo(path, _DATE)
            entry.external_attr = 0o644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, data)
    return f"{package}-{found.version}-py3-none-any.whl", buffer.getvalue()


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
