"""Payloads that are not JSON, of a benchmark and for hooks, in the form in which clients send them."""

from dataclasses import dataclass
from typing import Any


class Form(dict[str, Any]):
    """A multipart form: `Form(model="whisper", file=("a.wav", data, "audio/wav"))`.

    A tuple `(file name, bytes, content type)` is a file, a list repeats its field. Hooks receive one for a multipart
    request; what they return is sent as a form as well.
    """


@dataclass(frozen=True, slots=True)
class Body:
    """A body of any type: `Body(data, "image/png")`. A `payload_class` receives one for a body without form or JSON."""

    content: bytes
    content_type: str
