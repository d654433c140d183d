"""Encodes the fields of a `payload_class` (`generate_payload_multipart`) as a multipart form."""

import json
import secrets
from collections.abc import Iterator, Mapping
from typing import Any


class FormError(TypeError):
    """A field cannot be encoded; the message names it."""


def encode(fields: Mapping[str, Any]) -> tuple[bytes, bytes]:
    """The body and its content type.

    A tuple `(file name, bytes, content type)` is a file. A list repeats its field, and None is omitted. An object, or
    a list inside a list, becomes JSON. True and False become `true` and `false`, any other value its text.

    Raises:
        FormError: bytes without a file name and content type.
    """
    boundary = secrets.token_hex(16).encode()
    parts = []
    for name, value in fields.items():
        for head, content in _parts(name, value):
            parts.append(b"--" + boundary + b"\r\n" + head + b"\r\n\r\n" + content + b"\r\n")
    parts.append(b"--" + boundary + b"--\r\n")
    return b"".join(parts), b"multipart/form-data; boundary=" + boundary


def _parts(name: str, value: Any) -> Iterator[tuple[bytes, bytes]]:
    for item in value if isinstance(value, list) else [value]:
        if item is None:
            continue
        if isinstance(item, tuple):
            file_name, content, kind = item
            disposition = f'; name="{_quoted(name)}"; filename="{_quoted(str(file_name))}"'
            head = f"Content-Disposition: form-data{disposition}\r\nContent-Type: {_line(str(kind))}"
            yield head.encode(), bytes(content)
        else:
            yield f'Content-Disposition: form-data; name="{_quoted(name)}"'.encode(), _text(name, item)


def _text(name: str, item: Any) -> bytes:
    if isinstance(item, bytes | bytearray):
        raise FormError(
            f"form field {name!r}: expected (file name, bytes, content type) for a file, received bytes"
        )
    if isinstance(item, dict | list):
        return json.dumps(item).encode()
    if isinstance(item, bool):
        return b"true" if item else b"false"
    return str(item).encode()


def _quoted(text: str) -> str:
    """Escape quotes and line ends as browsers do."""
    return text.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")


def _line(text: str) -> str:
    return text.replace("\r", "").replace("\n", "")
