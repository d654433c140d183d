"""The deployment's keys, from the environment or the state folder, where `stokerd dev` generates them.

They never reach Temporal. Only its owner can read `keys.json`. Each role gets only the keys that it needs, and each
child process gets only its role's secrets from the environment.
"""

import json
import os
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from run.errors import CommandError
from run.state_folder.secure_files import write_private

_FILE = "keys.json"
_NAMED_SECRET_PREFIX = "STOKER_SECRET_"  # noqa: S105 - the name of a variable, not a secret
NOTIFY_SECRET_PREFIX = "STOKER_NOTIFY_SECRET_"  # noqa: S105 - the name of a variable, not a secret
"""`STOKER_NOTIFY_SECRET_<NAME>`: the secret of the notice channel of this name, upper case, `_` for `-`."""

Role = Literal["engine", "worker", "market", "dashboard"]

_ACCOUNT = "STOKER_ACCOUNT_KEY"
_HMAC = "STOKER_HMAC_SECRET"
_ACCOUNT_PREVIOUS = "STOKER_ACCOUNT_KEY_PREVIOUS"
_HMAC_PREVIOUS = "STOKER_HMAC_SECRET_PREVIOUS"
_SIGNING = "STOKER_SIGNING_KEY_FILE"
_CA = "STOKER_CA_KEY_FILE"
_GENERATED_START = "mk-"
_GENERATED = re.compile(rf"{_GENERATED_START}[A-Za-z0-9_-]{{32}}")
"""A generated key of the host marketplace."""
_MARKET = ("STOKER_MARKET_KEY", "VAST_API_KEY")
_MARKET_WEBHOOK = "STOKER_MARKET_WEBHOOK_SECRET"
_MARKET_WEBHOOK_CHARS_MIN = 16
PROMETHEUS_AUTHORIZATION = "STOKER_PROMETHEUS_AUTHORIZATION"
"""The dashboard's `Authorization` to its Prometheus server."""

_VARIABLES: dict[Role, tuple[str, ...]] = {
    "engine": (_ACCOUNT, _ACCOUNT_PREVIOUS, _HMAC, _HMAC_PREVIOUS, _SIGNING, _CA, _MARKET_WEBHOOK, *_MARKET),
    "worker": (_HMAC, *_MARKET),
    "market": _MARKET,
    "dashboard": (_ACCOUNT, PROMETHEUS_AUTHORIZATION),
}
"""The environment variables with a role's secrets. See also `_ROLES_OF_PREFIX`."""
_ROLES_OF_PREFIX: dict[str, tuple[Role, ...]] = {
    _NAMED_SECRET_PREFIX: ("worker",),
    NOTIFY_SECRET_PREFIX: ("worker", "engine"),
    "OTEL_": ("worker", "engine"),
}
"""Variables of which a deployment has any number, by their beginning. Those of OpenTelemetry may name a key of the
collector."""

_SECRET_VARIABLES = frozenset({"STOKER_API_KEY"}.union(*_VARIABLES.values()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """The secrets of a deployment. The repr omits them."""

    account_keys: dict[str, str] = field(repr=False)
    """Keys by account name, for the console and for routing to the account's endpoints."""
    secret: bytes = field(repr=False)
    """HMAC secret from which worker tokens and endpoint keys are derived."""
    signing_key_pem: str = field(repr=False)
    """RSA private key of the official route signature."""
    ca_key_pem: str = field(repr=False)
    """Private key of the certificate authority for workers' TLS; may be empty."""
    market_key: str = field(repr=False)
    """The marketplace's API key."""
    market_webhook_secret: str = field(default="", repr=False)
    """Signs the marketplace's webhooks; may be empty."""
    account_keys_previous: dict[str, str] = field(default_factory=dict, repr=False)
    """Previous account keys, also accepted during a rotation."""
    secrets_previous: tuple[bytes, ...] = field(default=(), repr=False)
    """Previous HMAC secrets, whose tokens and keys are also accepted during a rotation."""
    named: dict[str, str] = field(default_factory=dict, repr=False)
    """Values for `secret:NAME` references in a template's environment."""

    @property
    def account_key(self) -> str:
        """The key of the first account, for single-tenant deployments."""
        return next(iter(self.account_keys.values()))

    def only_for(self, role: Role) -> "Keys":
        """The keys that the role needs; the others are empty."""
        emptied = {
            "engine": {"named": {}},
            "worker": {
                "market_webhook_secret": "",
                "account_keys": {},
                "account_keys_previous": {},
                "secrets_previous": (),
                "signing_key_pem": "",
                "ca_key_pem": "",
            },
            "market": {
                "market_webhook_secret": "",
                "account_keys": {},
                "secret": b"",
                "signing_key_pem": "",
                "ca_key_pem": "",
                "account_keys_previous": {},
                "secrets_previous": (),
                "named": {},
            },
            "dashboard": {
                "market_webhook_secret": "",
                "secret": b"",
                "signing_key_pem": "",
                "ca_key_pem": "",
                "market_key": "",
                "account_keys_previous": {},
                "secrets_previous": (),
                "named": {},
            },
        }
        return replace(self, **emptied[role])  # type: ignore[arg-type]


def environment_for(role: Role | None, environ: Mapping[str, str]) -> dict[str, str]:
    """stoker's variables for a child process: settings for every role, secrets for the role that needs them.

    A running process's environment is readable in /proc. Role None: a child without secrets.
    """
    own = _VARIABLES[role] if role is not None else ()
    return {
        name: value
        for name, value in environ.items()
        if name in own or (role is not None and _may_have(role, name))
    }


def _may_have(role: Role, name: str) -> bool:
    for prefix, roles in _ROLES_OF_PREFIX.items():
        if name.startswith(prefix):
            return role in roles
    return name.startswith("STOKER_") and name not in _SECRET_VARIABLES


def load_keys(state_dir: Path, *, generate: bool, role: Role | None = None, uses_vast: bool = False) -> Keys:
    """The keys of this deployment, or of one role.

    Environment variables override `keys.json`: `STOKER_ACCOUNT_KEY`, `STOKER_HMAC_SECRET`, `STOKER_SIGNING_KEY_FILE`,
    `STOKER_CA_KEY_FILE`, `STOKER_MARKET_KEY` (or `VAST_API_KEY`) and `STOKER_SECRET_<NAME>`. For a rotation, the
    previous keys are in `STOKER_ACCOUNT_KEY_PREVIOUS` and `STOKER_HMAC_SECRET_PREVIOUS`, or under `previous` in the file; see
    `docs/how-to/production.md`.

    Args:
        generate: generate missing keys and write them to the file.
        uses_vast: workers are rented on Vast.ai. Its key is never generated, and a generated one is refused.

    Raises:
        CommandError: a key is missing or invalid, or a file is readable by others, unreadable or not writable. Messages
            contain no keys.
    """
    path = state_dir / _FILE
    stored = _read(path)
    if generate and not _complete(stored, uses_vast):
        stored = _generated(uses_vast) | stored
        _write(path, stored)
    environ = os.environ
    account_keys = _texts(stored, "account_keys", path)
    if key := environ.get("STOKER_ACCOUNT_KEY"):
        account_keys["default"] = key
    secret = environ.get("STOKER_HMAC_SECRET") or _text(stored, "secret", path)
    pem = _text(stored, "signing_key_pem", path)
    if file := environ.get("STOKER_SIGNING_KEY_FILE"):
        pem = _pem_in(file, _SIGNING)
    ca_pem = _text(stored, "ca_key_pem", path)
    if file := environ.get("STOKER_CA_KEY_FILE"):
        ca_pem = _pem_in(file, _CA)
    market_key = environ.get("STOKER_MARKET_KEY") or environ.get("VAST_API_KEY") or ""
    if not market_key:
        market_key = _text(stored, "market_key", path)
        if uses_vast:
            _require_vast_key(market_key, path)
    for name, value in (
        (_ACCOUNT, account_keys),
        (_HMAC, secret),
        (_SIGNING, pem),
        (_MARKET[0], market_key),
    ):
        if not value and (role is None or name in _VARIABLES[role]):
            raise CommandError(f"{name} is not set and not in {path}; set it, or run `stokerd dev` once")
    if role == "engine":
        _require_private_key(pem, _SIGNING, "signing_key_pem", rsa.RSAPrivateKey, "an RSA")
        if ca_pem:
            _require_private_key(ca_pem, _CA, "ca_key_pem", ec.EllipticCurvePrivateKey, "an elliptic curve")
    webhook_secret = _webhook_secret(stored, path)
    named = _texts(stored, "named", path) | {
        key.removeprefix(_NAMED_SECRET_PREFIX): value
        for key, value in environ.items()
        if key.startswith(_NAMED_SECRET_PREFIX)
    }
    _require_clean(
        {
            _ACCOUNT: account_keys.get("default", ""),
            _HMAC: secret,
            _MARKET[0]: market_key,
            _MARKET_WEBHOOK: webhook_secret,
        },
        path,
    )
    previous = _mapping(stored, "previous", path)
    account_keys_previous = _texts(previous, "account_keys", path)
    if key := environ.get(_ACCOUNT_PREVIOUS):
        account_keys_previous["default"] = key
    secret_previous = environ.get(_HMAC_PREVIOUS) or _text(previous, "secret", path)
    keys = Keys(
        account_keys_previous=account_keys_previous,
        secrets_previous=(_encoded(secret_previous, _HMAC_PREVIOUS),) if secret_previous else (),
        account_keys=account_keys,
        secret=_encoded(secret, _HMAC),
        signing_key_pem=pem,
        ca_key_pem=ca_pem,
        market_key=market_key,
        market_webhook_secret=webhook_secret,
        named=named,
    )
    return keys if role is None else keys.only_for(role)


def load_account_key(state_dir: Path) -> str:
    """The key of the first account; other keys may be missing.

    Raises:
        CommandError: there is no account key, or the file cannot be read.
    """
    path = state_dir / _FILE
    keys = _texts(_read(path), "account_keys", path)
    if key := os.environ.get(_ACCOUNT):
        keys["default"] = key
    if not keys:
        raise CommandError(f"{_ACCOUNT} is not set and not in {path}; set it, or run `stokerd dev` once")
    return next(iter(keys.values()))


def _webhook_secret(stored: dict[str, Any], path: Path) -> str:
    secret = os.environ.get(_MARKET_WEBHOOK) or _text(stored, "market_webhook_secret", path)
    if 0 < len(secret) < _MARKET_WEBHOOK_CHARS_MIN:
        raise CommandError(
            f"{_MARKET_WEBHOOK}, or market_webhook_secret in {path}, should have at least "
            f"{_MARKET_WEBHOOK_CHARS_MIN} characters, as the marketplace showed it"
        )
    return secret


def _require_vast_key(market_key: str, path: Path) -> None:
    if not market_key or _GENERATED.fullmatch(market_key):
        raise CommandError(
            "market.kind is vast, but its key is missing: set VAST_API_KEY or STOKER_MARKET_KEY, or "
            f"market_key in {path}"
            + ("; the present one was generated for the host marketplace" if market_key else "")
        )


def _require_clean(given: Mapping[str, str], path: Path) -> None:
    """Refuse keys with surrounding white space or control characters: a header cannot contain them."""
    for name, value in given.items():
        if value != value.strip() or any(ord(char) < 0x20 or ord(char) == 0x7F for char in value):
            raise CommandError(
                f"{name}, or its value in {path}, should have no surrounding white space and no line breaks"
            )


def _complete(stored: dict[str, Any], uses_vast: bool) -> bool:
    required = {"account_keys", "secret", "signing_key_pem", "ca_key_pem"}
    return (required if uses_vast else required | {"market_key"}) <= stored.keys()


def _generated(uses_vast: bool) -> dict[str, Any]:
    pem = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    authority = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    market = {} if uses_vast else {"market_key": _GENERATED_START + secrets.token_urlsafe(24)}
    return {
        "account_keys": {"default": "sk-" + secrets.token_urlsafe(24)},
        "secret": secrets.token_urlsafe(32),
        "signing_key_pem": pem.decode(),
        "ca_key_pem": authority.decode(),
        "named": {},
    } | market


def _read(path: Path) -> dict[str, Any]:
    try:
        if not path.exists():
            return {}
        if path.stat().st_mode & 0o077:
            raise CommandError(f"{path} contains keys and is readable by others; run: chmod 600 {path}")
        stored = json.loads(path.read_text())
    except OSError as fault:
        raise CommandError(
            f"{path} cannot be read ({fault.strerror}); this user should own it, or give another state_dir"
        ) from fault
    except (ValueError, RecursionError) as fault:
        raise CommandError(
            f"{path} is not JSON ({fault}); correct it, or remove it to generate new keys"
        ) from fault
    if not isinstance(stored, dict):
        raise CommandError(
            f"{path} should contain a JSON object; correct it, or remove it to generate new keys"
        )
    return stored


def _mapping(stored: dict[str, Any], name: str, path: Path) -> dict[str, Any]:
    found = stored.get(name) or {}
    if not isinstance(found, dict):
        raise CommandError(f"{path}: {name} should be a JSON object, not {type(found).__name__}")
    return dict(found)


def _texts(stored: dict[str, Any], name: str, path: Path) -> dict[str, str]:
    found = _mapping(stored, name, path)
    for key, value in found.items():
        if not isinstance(value, str):
            raise CommandError(f"{path}: {name}.{key} should be text, not {type(value).__name__}")
    return found


def _text(stored: dict[str, Any], name: str, path: Path) -> str:
    found = stored.get(name)
    if found is None:
        return ""
    if not isinstance(found, str):
        raise CommandError(f"{path}: {name} should be text, not {type(found).__name__}")
    return found


def _encoded(secret: str, variable: str) -> bytes:
    try:
        return secret.encode()
    except UnicodeEncodeError:
        raise CommandError(f"{variable}, or its value in {_FILE}, is not Unicode text; change it") from None


def _require_private_key(pem: str, variable: str, name: str, kind: type, called: str) -> None:
    """Check the key's type: with a wrong one, the engine fails later or official workers refuse its signatures."""
    try:
        key = serialization.load_pem_private_key(pem.encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):  # TypeError: the key needs a password
        key = None
    if not isinstance(key, kind):
        raise CommandError(
            f"{variable}, or {name} in {_FILE}, should be {called} private key in PEM without a password; replace it"
        )


def _pem_in(file: str, variable: str) -> str:
    try:
        return Path(file).read_text()
    except (OSError, ValueError) as fault:
        raise CommandError(
            f"{variable}: {file} cannot be read: {fault}; name a PEM file with a private key"
        ) from fault


def _write(path: Path, stored: dict[str, Any]) -> None:
    temporary = path.with_suffix(".new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_private(temporary, json.dumps(stored, indent=1))
        temporary.replace(path)
    except OSError as fault:
        raise CommandError(f"{path} cannot be written ({fault.strerror}); give another state_dir") from fault
