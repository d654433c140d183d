"""Text from outside that is long and repetitive is read in linear time: these cases would take hours otherwise."""

import contextlib

import pytest

from engine.api.request_buffer import BufferedBody
from market.query.docker_flags import parse_env
from market.query.errors import GrammarError
from market.query.search import parse_search
from policy.state.host_failures import cause_of
from stoker_wire.http1.request import Request
from stoker_wire.parsing.escaping import escape_text
from stoker_wire.security.redaction import is_secret_name

SIZE = 400_000
UNITS = [
    ",",
    ";",
    "a,",
    " ",
    "[",
    '"',
    "'",
    "=",
    "a=",
    "0",
    "a0",
    "0x",
    "_",
    "KEY_",
    "-e ",
    "-e a=",
    "\x1b[",
    "\\",
]


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("start", ["", "gpu_name=", "gpu_name in ["])
def test_a_search_of_repeated_text(start: str, unit: str) -> None:
    text = start + unit * (SIZE // len(unit))
    with contextlib.suppress(GrammarError):
        parse_search(text)


@pytest.mark.parametrize("unit", UNITS)
def test_other_text_of_repeated_parts(unit: str) -> None:
    text = unit * (20_000 // len(unit))
    with contextlib.suppress(GrammarError):
        parse_env(text)
    assert cause_of(text[:2000]) is not None
    assert escape_text(text)
    assert is_secret_name(text) in (True, False)


@pytest.mark.parametrize(
    "unit",
    [
        b"form-data; name=model\r\n",
        b'form-data; name="model"\r\nx: y\r\n',
        b"\r\n\r\nllm\r\n--",
        b'--b\r\nContent-Disposition: form-data; name="other"\r\n\r\nllm\r\n',
        b"\r\n",
    ],
)
def test_a_form_of_thousands_of_parts(unit: bytes) -> None:
    body = BufferedBody(Request())
    body.content_type = "multipart/form-data; boundary=b"
    part = b'Content-Disposition: form-data; name="model"\r\n\r\nllm\r\n--b--\r\n'
    body._data = unit * (2_000_000 // len(unit)) + b"\r\n--b\r\n" + part
    assert body.names_model("llm", None)
    assert body.rename_model("llm", "tiny").endswith(part.replace(b"llm", b"tiny"))
