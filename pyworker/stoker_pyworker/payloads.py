"""Payloads of a benchmark that are not JSON, in the form in which clients send them."""

from dataclasses import dataclass
from typing import Any


class Form(dict[str, Any]):
    """A multipart form: `Form(model="whisper", file=("a.wav", data, "audio/wav"))`.

    A tuple `(file name, bytes, content type)` is a file, a list repeats its field.
    """


@dataclass(frozen=True, slots=True)
class Body:
    """A body of any type: `Body(data, "image/png")`."""

    content: bytes
    content_type: str
