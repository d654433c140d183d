"""Multipart forms: the fields as bytes for the model, and the fields of a client's form for hooks."""

import json
import re
import secrets
from collections.abc import Iterator, Mapping
from typing import Any

from stoker_pyworker.payloads import Form

_PARTS_MAX = 1000
_TYPE = re.compile(
    rb"multipart/form-data\s*;(?:.*;)?\s*boundary=(?:\"([^\"\r\n]{1,70})\"|([^\s\";,]{1,70}))", re.IGNORECASE
)
_NAMED = re.compile(r';\s*(name|filename)="([^"]*)"', re.IGNORECASE)
_ESCAPES = {"%22": '"', "%0D": "\r", "%0A": "\n"}


class FormError(TypeError):
    """A field cannot be encoded, or a form cannot be read; the message says which."""


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


def decode(body: bytes | memoryview, content_type: bytes) -> Form | None:
    """The fields of a form, as `encode` takes them; None: the content type is not a form's.

    Raises:
        FormError: the body is not the form that its content type promises.
    """
    if not content_type.lower().startswith(b"multipart/form-data"):
        return None
    found = _TYPE.match(content_type)
    if found is None:
        raise FormError("the form's Content-Type has no boundary")
    delimiter = b"\r\n--" + (found[1] or found[2])
    _, *parts = (b"\r\n" + bytes(body)).split(delimiter, _PARTS_MAX + 1)
    if not parts or not parts[-1].startswith(b"--"):
        raise FormError(f"the form does not end with its boundary, or has over {_PARTS_MAX} fields")
    form = Form()
    for part in parts[:-1]:
        name, value = _field(part)
        before = form.get(name)
        if name not in form:
            form[name] = value
        else:
            form[name] = [*(before if isinstance(before, list) else [before]), value]
    return form


def _field(part: bytes) -> tuple[str, Any]:
    """Name and value of one part: text, or a file as `(file name, bytes, content type)`."""
    head, blank, content = part.partition(b"\r\n\r\n")
    if not blank or head.partition(b"\r\n")[0].strip(b" \t"):
        raise FormError("a part of the form has no header")
    try:
        lines = head.decode().split("\r\n")[1:]
    except UnicodeDecodeError:
        raise FormError("the header of a part of the form is not UTF-8") from None
    headers = {line.partition(":")[0].strip().lower(): line.partition(":")[2].strip() for line in lines}
    named = {
        key.lower(): _unquoted(text) for key, text in _NAMED.findall(headers.get("content-disposition", ""))
    }
    if "name" not in named:
        raise FormError("a part of the form has no name")
    if "filename" in named:
        kind = headers.get("content-type", "application/octet-stream")
        return named["name"], (named["filename"], content, kind)
    try:
        return named["name"], content.decode()
    except UnicodeDecodeError:
        raise FormError(
            f"form field {named['name']!r:.80}: a text is not UTF-8, and a file needs a filename"
        ) from None


def _unquoted(text: str) -> str:
    for escape, character in _ESCAPES.items():
        text = text.replace(escape, character)
    return text
