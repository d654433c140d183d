"""The deployment's secrets. References to them are resolved only here, because no history may contain a secret."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from market.interface import Refused
from stoker_wire.security.redaction import HIDDEN, REFERENCE
from stoker_wire.security.token import mint_worker_token

_SHORTEST_HIDDEN = 4
"""Shorter values are not redacted: they would occur by chance in ordinary text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentSecrets:
    """The HMAC secret, the named secrets that templates refer to, and where workers report."""

    hmac_secret: bytes = field(repr=False)
    named: Mapping[str, str] = field(default_factory=dict, repr=False)
    report_address: str = ""
    """The engine's address as instances reach it, without a slash at the end (`REPORT_ADDR`)."""

    def worker_token(self, endpoint_id: int, launch_id: str) -> str:
        """The token that authenticates one launch (`MASTER_TOKEN`)."""
        return mint_worker_token(self.hmac_secret, endpoint_id, launch_id)

    def resolve(self, env: Mapping[str, str]) -> dict[str, str]:
        """The environment with each `secret:NAME` replaced.

        Raises:
            Refused: the deployment has no secret of this name.
        """
        return {key: self._value(key, value) for key, value in env.items()}

    def redact(self, text: str) -> str:
        """The text with secrets replaced: a market may echo what it received."""
        for value in sorted(self.named.values(), key=len, reverse=True):
            if len(value) >= _SHORTEST_HIDDEN:
                text = text.replace(value, HIDDEN)
        return text

    def _value(self, key: str, value: str) -> str:
        if not value.startswith(REFERENCE):
            return value
        name = value.removeprefix(REFERENCE)
        if name not in self.named:
            raise Refused(
                f"the environment variable {key} refers to the secret {name!r}, which this deployment does not "
                f"have: add it to the deployment's secrets, or correct the name",
                code="no_such_secret",
            )
        return self.named[name]
