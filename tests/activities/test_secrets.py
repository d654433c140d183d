"""Secrets of the deployment: redacted wherever a marketplace may echo them."""

from activities.secrets import DeploymentSecrets
from stoker_wire.security.redaction import HIDDEN


def redacted(text: str, **named: str) -> str:
    return DeploymentSecrets(hmac_secret=b"h" * 16, named=named).redact(text)


def test_a_secret_that_contains_another_one_is_redacted_as_a_whole() -> None:
    text = redacted("got abcd and abcdefgh", short="abcd", long="abcdefgh")
    assert text == f"got {HIDDEN} and {HIDDEN}", "replacing the shorter one first would leave efgh"


def test_values_of_fewer_than_four_characters_are_not_redacted() -> None:
    assert redacted("on one", three="one", two="on") == "on one"
    assert redacted("a four b", four="four") == f"a {HIDDEN} b"
