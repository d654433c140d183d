"""`stokerd init`: writes the settings file of a deployment."""

import re
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from run.errors import CommandError
from run.packaged_files import DEFAULT_SETTINGS
from run.settings import EngineListen, load_settings
from stoker_wire.security.loopback import is_loopback_url

MarketName = Literal["hosts", "vast"]


def write_settings(path: Path, market: MarketName, *, public_url: str | None) -> list[str]:
    """Write the settings, and return the next steps, one line each.

    Raises:
        CommandError: the file exists, cannot be written, or the public URL is missing or cannot be used.
    """
    if market == "vast":
        _check_public_url(public_url)
    text = settings_text(DEFAULT_SETTINGS.read_text(encoding="utf-8"), market, public_url=public_url)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise CommandError(f"{path} exists; move it away, or give another --config") from None
    except OSError as fault:
        raise CommandError(f"cannot write {path}: {fault.strerror}") from fault
    load_settings(path)
    start = "stokerd dev" if path.name == DEFAULT_SETTINGS.name else f"stokerd dev --config {path}"
    if market == "hosts":
        return [f"wrote {path}", f"next: {start}"]
    return [
        f"wrote {path}",
        f"next: let a TLS proxy serve {public_url} from http://127.0.0.1:8080 (deploy/proxy)",
        "      export VAST_API_KEY=…    # the marketplace's key; it is not stored",
        f"      {start}",
    ]


def settings_text(default: str, market: MarketName, *, public_url: str | None) -> str:
    """The default settings, changed for this marketplace."""
    text = default
    if public_url is not None:
        text = _replaced(text, r"^  public_url: null .*$", f"  public_url: {public_url}")
    if market == "hosts":
        return text
    text = _replaced(text, r"^  kind: host ", "  kind: vast ")
    text = _replaced(text, r"^  calls_per_second_max: 20 ", "  calls_per_second_max: 1  ")
    return _replaced(text, r"\nhost_market:[\s\S]*\Z", "")


def _replaced(text: str, pattern: str, by: str) -> str:
    changed, count = re.subn(pattern, lambda _: by, text, flags=re.MULTILINE)
    if count != 1:
        raise CommandError(
            f"the packaged {DEFAULT_SETTINGS.name} has no line {pattern!r}; install stoker again"
        )
    return changed


def _check_public_url(public_url: str | None) -> None:
    if public_url is None:
        raise CommandError(
            "--public-url is required: rented machines report to it, e.g. https://engine.example.org"
        )
    try:
        EngineListen(public_url=public_url)
    except ValidationError:
        raise CommandError(
            f"--public-url should be https://host[:port][/path] without a trailing slash, got {public_url!r:.80}"
        ) from None
    if is_loopback_url(public_url):
        raise CommandError(
            f"--public-url: rented machines cannot reach {public_url}; give an address of the internet"
        )
