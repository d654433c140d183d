"""Reads what is needed to size a model: from a file or folder of this machine, or from a Hugging Face repository."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from stoker.errors import Invalid, StokerError
from stoker.preflight import gguf, model_config
from stoker.preflight.model_config import ModelShape
from stoker_wire.parsing.numbers import finite
from stoker_wire.security.loopback import is_loopback

HUB = "https://huggingface.co"
HUB_SECONDS_MAX = 20.0
_CONFIG_BYTES_MAX = 4 * 1024 * 1024
_GGUF_HEADER_BYTES = 512 * 1024
"""The model's shape comes before the vocabulary, in the first kilobytes."""
_WEIGHTS = (".safetensors", ".bin", ".pth")
"""Weight files by preference; a repository often has the same weights in several formats."""
_NOT_WEIGHTS = ("training_args.bin", "optimizer.bin", "scheduler.bin")
GGUF_QUANTIZATION = "Q4_K_M"
"""What llama.cpp downloads if a repository's name has no `:quantization`."""


class ModelUnavailable(StokerError):
    """The model's size cannot be found out: no network, or a repository without a readable config."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model with its shape and the size of its weights."""

    name: str
    shape: ModelShape
    weights_bytes: float
    download_bytes: float
    """Bytes that an instance downloads; 0: the file is on this machine."""
    gated: bool = False
    """Whether the download needs a token."""


async def read_model(name: str, *, is_gguf: bool = False, token: str | None = None, hub: str = HUB) -> Model:
    """The model with this name: a local path, or `owner/repository` (for GGUF with `:quantization`).

    Raises:
        Invalid: there is no such file or repository, or it holds no model that can be sized.
        ModelUnavailable: the hub does not answer, or the model's architecture is unknown.
    """
    if (path := local_path(name)) is not None:
        return await asyncio.to_thread(_local, path)
    if name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise Invalid(f"{name}: no such file or folder here, and not the form owner/repository")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with httpx.AsyncClient(
        base_url=hub,
        headers=headers,
        timeout=HUB_SECONDS_MAX,
        follow_redirects=True,
        trust_env=not is_loopback(httpx.URL(hub).host),
    ) as http:
        try:
            return await (_hub_gguf(http, name) if is_gguf else _hub(http, name))
        except httpx.HTTPError as fault:
            raise ModelUnavailable(f"{hub} does not answer: {type(fault).__name__}") from None


def local_path(name: str) -> Path | None:
    """The file or folder of this machine with this name."""
    path = Path(name).expanduser()
    return path.resolve() if path.exists() else None


def _local(path: Path) -> Model:
    try:
        if path.is_file():
            with path.open("rb") as file:
                shape = gguf.read_shape(gguf.read_metadata(file.read(gguf.HEADER_BYTES_MAX)))
            return Model(name=str(path), shape=shape, weights_bytes=path.stat().st_size, download_bytes=0.0)
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
        shape = model_config.read_shape(config)
        sizes = {each.name: each.stat().st_size for each in path.iterdir() if each.is_file()}
    except FileNotFoundError as fault:
        raise Invalid(
            f"{path}: {fault.filename} is missing; expected a model folder with config.json"
        ) from None
    except OSError as fault:
        raise Invalid(f"{path}: cannot be read: {fault.strerror}") from None
    except (ValueError, TypeError, AttributeError) as fault:
        raise Invalid(f"{path}: holds no model whose size can be read: {fault}") from None
    weights = _weight_files(sizes) or shape.weights_bytes
    if weights is None:
        raise Invalid(f"{path}: has no weight files ({', '.join(_WEIGHTS)})")
    return Model(name=str(path), shape=shape, weights_bytes=weights, download_bytes=0.0)


async def _hub(http: httpx.AsyncClient, name: str) -> Model:
    about = await _repository(http, name)
    sizes = _sizes(about)
    reply = await http.get(f"/{quote(name)}/resolve/main/config.json")
    _check(reply, name)
    try:
        shape = model_config.read_shape(json.loads(reply.content[:_CONFIG_BYTES_MAX]))
    except (ValueError, TypeError, AttributeError) as fault:
        raise ModelUnavailable(f"{name}: its config.json describes no known transformer: {fault}") from None
    weights = _weight_files(sizes) or shape.weights_bytes
    if weights is None:
        raise ModelUnavailable(
            f"{name}: lists no weight files, and its architecture {shape.architecture} is unknown"
        )
    return Model(
        name=name, shape=shape, weights_bytes=weights, download_bytes=weights, gated=bool(about.get("gated"))
    )


async def _hub_gguf(http: httpx.AsyncClient, name: str) -> Model:
    repository, _, wanted = name.partition(":")
    about = await _repository(http, repository)
    sizes = {file: size for file, size in _sizes(about).items() if file.lower().endswith(".gguf")}
    chosen = _gguf_files(sizes, wanted or GGUF_QUANTIZATION) or ({} if wanted else _gguf_files(sizes, ""))
    if not chosen:
        have = ", ".join(sorted(sizes)[:8]) or "none"
        raise Invalid(f"{repository}: has no GGUF file for {wanted or GGUF_QUANTIZATION}; its files: {have}")
    first = min(chosen)
    headers = {"Range": f"bytes=0-{_GGUF_HEADER_BYTES - 1}"}
    async with http.stream(
        "GET", f"/{quote(repository)}/resolve/main/{quote(first)}", headers=headers
    ) as reply:
        _check(reply, repository)
        data = b""
        async for chunk in reply.aiter_bytes():
            data += chunk
            if len(data) >= _GGUF_HEADER_BYTES:
                break
    try:
        shape = gguf.read_shape(gguf.read_metadata(data))
    except ValueError as fault:
        raise ModelUnavailable(f"{repository}: {first}: {fault}") from None
    total = sum(chosen.values())
    gated = bool(about.get("gated"))
    return Model(name=name, shape=shape, weights_bytes=total, download_bytes=total, gated=gated)


async def _repository(http: httpx.AsyncClient, name: str) -> Mapping[str, Any]:
    reply = await http.get(f"/api/models/{quote(name)}", params={"blobs": "true"})
    _check(reply, name)
    try:
        about = reply.json()
    except ValueError:
        about = None
    if not isinstance(about, Mapping):
        raise ModelUnavailable(f"{http.base_url} did not describe {name}; is it a Hugging Face hub?")
    return about


def _check(reply: httpx.Response, name: str) -> None:
    hub = f"{reply.request.url.scheme}://{reply.request.url.netloc.decode()}"
    if reply.headers.get("X-Error-Code") == "GatedRepo":
        raise Invalid(
            f"{name}: the repository is gated ({reply.status_code}): accept its licence at {hub}/{name} and set HF_TOKEN to "
            "a token with access"
        )
    if reply.status_code in (401, 403):
        raise Invalid(
            f"{name}: {hub} refuses access ({reply.status_code}): the name is wrong, or the repository is private. Check "
            "the name, and set HF_TOKEN to a valid token"
        )
    if reply.status_code == 404:
        raise Invalid(f"{name}: {hub} has no such repository or file; check the name")
    if not reply.is_success:
        raise ModelUnavailable(f"{hub} answered {reply.status_code} for {name}")


def _sizes(about: Mapping[str, Any]) -> dict[str, float]:
    siblings = about.get("siblings")
    found: dict[str, float] = {}
    for each in siblings if isinstance(siblings, list) else []:
        if isinstance(each, Mapping) and isinstance(each.get("rfilename"), str):
            found[each["rfilename"]] = finite(each.get("size")) or 0.0
    return found


def _weight_files(sizes: Mapping[str, float]) -> float:
    """The summed size of the weight files at the top of a repository, in the preferred format."""
    for suffix in _WEIGHTS:
        total = sum(
            size
            for file, size in sizes.items()
            if "/" not in file
            and file.endswith(suffix)
            and file not in _NOT_WEIGHTS
            and not file.startswith("consolidated")
        )
        if total:
            return total
    return 0.0


def _gguf_files(sizes: Mapping[str, float], quantization: str) -> dict[str, float]:
    """The file of this quantization with its further parts; of several models, the first by name."""
    named = {
        file: size
        for file, size in sizes.items()
        if quantization.lower() in file.lower() and "mmproj" not in file.lower()
    }
    if not named:
        return {}
    stem = _stem(min(named))
    return {file: size for file, size in named.items() if _stem(file) == stem}


def _stem(file: str) -> str:
    """The name without `-00001-of-00003.gguf`."""
    base, _, parts = file.removesuffix(".gguf").rpartition("-of-")
    return base.rpartition("-")[0] if base and parts.isdigit() else file
