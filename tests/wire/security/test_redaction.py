"""Secrets are recognised by variable names and redacted in text."""

import pytest

from stoker_wire.security.redaction import is_secret_name, plaintext_secrets, redact, secret_values


@pytest.mark.parametrize(
    "name",
    ["OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "DB_PASSWORD", "OPENAI_API_KEY", "AWS_SECRET_ACCESS_KEY", "MASTER_TOKEN",
     "CONTAINER_API_KEY", "GITHUB_TOKEN_2", "hf_token", "SECRET", "AWS_ACCESS_KEY_ID"],
)  # fmt: skip
def test_a_secret_name_is_recognised(name):
    assert is_secret_name(name)


@pytest.mark.parametrize(
    "name", ["OTEL_EXPORTER_OTLP_ENDPOINT", "HEADERS", "MAX_TOKENS", "TOKENIZER", "MODEL_NAME", "KEYS", "KEYBOARD", "PORT", "MONKEY", "TOKEN_LIMIT", "CACHE_KEY_LEN"]
)  # fmt: skip
def test_a_similar_name_is_not_a_secret_name(name):
    assert not is_secret_name(name)


def test_a_reference_is_not_a_plaintext_secret():
    given = {
        "HF_TOKEN": "secret:HF_TOKEN",
        "DB_PASSWORD": "in plain text",
        "API_KEY": "short",
        "A": "long enough",
    }
    assert plaintext_secrets(given) == ["DB_PASSWORD"]


def test_values_leave_a_text_the_longest_first():
    values = secret_values({"A_TOKEN": "12345678", "B_TOKEN": "12345678-and-more", "C": "no secret at all"})
    assert redact("refused 12345678-and-more, 12345678; no secret at all", values) == (
        "refused ***, ***; no secret at all"
    )
