"""Which environment variables hold secrets, by their names, and how a text is kept free of their values."""

import re
from collections.abc import Iterable, Mapping

HIDDEN = "***"
REFERENCE = "secret:"
"""An environment value `secret:NAME` stands for the deployment's secret of that name."""

VALUE_CHARS_MIN = 8
"""Shorter values are no secrets, and hiding each "a" of a sentence would only make it unreadable."""

_NAME = re.compile(
    r"(^|_)(TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?|APIKEY|(API|ACCESS|PRIVATE|AUTH|SECRET|LICENSE)_?KEY)($|_ID$|_[0-9]+$)",
    re.IGNORECASE,
)


def is_secret_name(name: str) -> bool:
    """Whether a variable of this name holds a secret: HF_TOKEN, DB_PASSWORD, OPENAI_API_KEY, and not MAX_TOKENS."""
    return _NAME.search(name) is not None


def plaintext_secrets(environment: Mapping[str, str]) -> list[str]:
    """The variables that hold a secret in plain where a reference could stand."""
    return [
        name
        for name, value in environment.items()
        if is_secret_name(name) and len(value) >= VALUE_CHARS_MIN and not value.startswith(REFERENCE)
    ]


def secret_values(environment: Mapping[str, str]) -> tuple[str, ...]:
    """What must stand in no log, report or error, the longest first; a reference is no secret."""
    return tuple(
        sorted({environment[name] for name in plaintext_secrets(environment)}, key=len, reverse=True)
    )


def redact(text: str, values: Iterable[str]) -> str:
    """The text without these values."""
    for value in values:
        text = text.replace(value, HIDDEN)
    return text
