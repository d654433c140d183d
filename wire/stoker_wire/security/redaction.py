"""Finds environment variables that contain secrets, by their names, and redacts their values in text."""

import re
from collections.abc import Iterable, Mapping

HIDDEN = "***"
REFERENCE = "secret:"
"""An environment value `secret:NAME` is replaced by the deployment's secret of that name."""

VALUE_CHARS_MIN = 8
"""Shorter values are not treated as secrets: redacting them would make text unreadable."""

_NAME = re.compile(
    r"(^|_)(TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?|APIKEY|(API|ACCESS|PRIVATE|AUTH|SECRET|LICENSE)_?KEY)($|_ID$|_[0-9]+$)"
    r"|^OTEL_EXPORTER_OTLP_([A-Z]+_)?HEADERS$",
    re.IGNORECASE,
)


def is_secret_name(name: str) -> bool:
    """Whether a variable of this name contains a secret: HF_TOKEN, DB_PASSWORD, OPENAI_API_KEY, but not MAX_TOKENS."""
    return _NAME.search(name) is not None


def plaintext_secrets(environment: Mapping[str, str]) -> list[str]:
    """The names of variables that contain a secret in plain text instead of a reference."""
    return [
        name
        for name, value in environment.items()
        if is_secret_name(name) and len(value) >= VALUE_CHARS_MIN and not value.startswith(REFERENCE)
    ]


def secret_values(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Values that must not appear in logs, reports or errors, longest first, without references."""
    return tuple(
        sorted({environment[name] for name in plaintext_secrets(environment)}, key=len, reverse=True)
    )


def redact(text: str, values: Iterable[str]) -> str:
    """The text with these values replaced by `***`."""
    for value in values:
        text = text.replace(value, HIDDEN)
    return text
