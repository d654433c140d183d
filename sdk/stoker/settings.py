"""The engine's address and the key: from arguments, the environment, the config file, or a local dev deployment."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from stoker.errors import Invalid

URL_VARIABLE = "STOKER_URL"
KEY_VARIABLE = "STOKER_API_KEY"
CA_VARIABLE = "STOKER_CA_FILE"
"""The path of certificates in PEM, which are trusted in addition to the system's."""
CONFIG_VARIABLE = "STOKER_CONFIG"
"""The path of the config file, if it is not `~/.config/stoker/config.toml`."""

LOCAL_FILE = Path(".stoker") / "client.toml"
"""Written by `stokerd dev` into its state folder: the address and key of the deployment in the working directory."""

_SETTINGS = frozenset({"url", "api_key", "ca_file"})


@dataclass(frozen=True, slots=True)
class Settings:
    """The engine's address without a trailing slash, and the key, which is not in the `repr`."""

    url: str
    api_key: str = field(repr=False)
    ca_file: str = ""
    """Certificates in PEM that are trusted in addition to the system's; empty: none."""


def config_path(environ: Mapping[str, str]) -> Path:
    """The config file: `$STOKER_CONFIG`, else `$XDG_CONFIG_HOME/stoker/config.toml`, else under `~/.config`."""
    if named := environ.get(CONFIG_VARIABLE):
        return Path(named)
    home = environ.get("XDG_CONFIG_HOME") or str(Path(environ.get("HOME") or Path.home()) / ".config")
    return Path(home) / "stoker" / "config.toml"


def read_settings(
    url: str | None = None, api_key: str | None = None, *, environ: Mapping[str, str] | None = None
) -> Settings:
    """The settings of a client.

    Raises:
        Invalid: no address or no key in these places, or the address is not an http(s) URL.
    """
    environ = os.environ if environ is None else environ
    path = config_path(environ)
    file_settings = _read_file(path)
    address = url or environ.get(URL_VARIABLE) or file_settings.get("url", "")
    key = api_key or environ.get(KEY_VARIABLE) or file_settings.get("api_key", "")
    if not address and not key:  # never the key of one deployment with the address of another
        local = _read_local(LOCAL_FILE)
        address, key = local.get("url", ""), local.get("api_key", "")
    if not address:
        raise Invalid(
            f'no engine address: pass url=…, set {URL_VARIABLE}, or write url = "http://…" into {path}'
        )
    if not key:
        raise Invalid(f'no key: pass api_key=…, set {KEY_VARIABLE}, or write api_key = "…" into {path}')
    if not key.isascii() or not key.isprintable() or " " in key:
        raise Invalid("the key contains blanks or characters that are not printable ASCII; copy it again")
    ca_file = environ.get(CA_VARIABLE) or file_settings.get("ca_file", "")
    return Settings(check_url(address), key, ca_file)


def _read_local(path: Path) -> dict[str, str]:
    """The settings of the dev deployment in this directory; empty if others can read or could have written the file."""
    try:
        about = path.stat()
    except OSError:
        return {}
    if about.st_mode & 0o077 or about.st_uid != os.getuid():
        return {}
    return _read_file(path)


def check_url(address: str) -> str:
    """The address without a trailing slash.

    Raises:
        Invalid: not an http(s) URL, or one with a query, a fragment or a password.
    """
    try:
        parts = urlsplit(address)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or not address.isprintable() or " " in address:
        raise Invalid(
            f"the engine's address is {address!r:.200}; expected one like https://engine.example:8080"
        )
    if parts.query or parts.fragment or "@" in parts.netloc:
        raise Invalid("the engine's address has a query, a fragment or a password; give the bare address")
    return address.rstrip("/")


def _read_file(path: Path) -> dict[str, str]:
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as fault:
        raise Invalid(f"cannot read {path}: {fault}; correct or remove it") from None
    for name, value in data.items():
        if name not in _SETTINGS:
            raise Invalid(f"{path}: unknown setting {name!r}; known are {', '.join(sorted(_SETTINGS))}")
        if not isinstance(value, str):
            raise Invalid(f"{path}: {name} must be text in quotes, not {type(value).__name__}")
    return data
