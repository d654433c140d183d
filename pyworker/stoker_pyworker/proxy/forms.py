"""Multipart forms for the model, from the fields that a `payload_class` names (`generate_payload_multipart`)."""

import json
import secrets
from collections.abc import Iterator, Mapping
from typing import Any


class FormError(TypeError):
    """A field cannot be sent in a form; the message names it."""


def encode(fields: Mapping[str, Any]) -> tuple[bytes, bytes]:
    """The body and its content type.

    A tuple `(file name, bytes, content type)` is a file; a list repeats its field; None is left out; an object or a
    list inside a list is sent as JSON, True and False as `true` and `false`, anything else as text.

    Raises:
        FormError: bare bytes, which have neither file name nor type.
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
        raise FormError(f"form field {name!r}: bytes are a file, send (file name, bytes, content type)")
    if isinstance(item, dict | list):
        return json.dumps(item).encode()
    if isinstance(item, bool):
        return b"true" if item else b"false"
    return str(item).encode()


def _quoted(text: str) -> str:
    """As browsers quote it: a name can neither end its quotes nor its line."""
    return text.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")


def _line(text: str) -> str:
    return text.replace("\r", "").replace("\n", "")
