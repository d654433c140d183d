"""The header of a GGUF file: the model's shape. Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

from stoker.preflight.model_config import ModelShape
from stoker_wire.parsing.numbers import finite

MAGIC = b"GGUF"
HEADER_BYTES_MAX = 32 * 1024 * 1024
"""How much of a file is read; the tokenizer's vocabulary is the largest part of a header."""
_PAIRS_MAX = 4096

_NUMBERS = {
    0: "<B",
    1: "<b",
    2: "<H",
    3: "<h",
    4: "<I",
    5: "<i",
    6: "<f",
    7: "<?",
    10: "<Q",
    11: "<q",
    12: "<d",
}
_STRING, _ARRAY = 8, 9
_ELEMENTS_KEPT = 1024


class _Truncated(Exception):
    """The bytes end inside the header."""


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def number(self, kind: str) -> Any:
        return struct.unpack(kind, self.take(struct.calcsize(kind)))[0]

    def take(self, count: int) -> bytes:
        if count < 0 or self._at + count > len(self._data):
            raise _Truncated
        taken = self._data[self._at : self._at + count]
        self._at += count
        return taken

    def string(self) -> str:
        return self.take(self.number("<Q")).decode("utf-8", "replace")

    def value(self, kind: int) -> Any:
        if kind in _NUMBERS:
            return self.number(_NUMBERS[kind])
        if kind == _STRING:
            return self.string()
        if kind != _ARRAY:
            raise ValueError(f"the GGUF header has a value of the unknown type {kind}")
        element, count = self.number("<I"), self.number("<Q")
        if element in _NUMBERS:
            data = self.take(count * struct.calcsize(_NUMBERS[element]))
            kept = min(count, _ELEMENTS_KEPT)
            letter = _NUMBERS[element][1]
            return list(struct.unpack_from(f"<{kept}{letter}", data))
        return [self.value(element) for _ in range(count)][:_ELEMENTS_KEPT]


def read_metadata(data: bytes) -> dict[str, Any]:
    """The metadata in the first bytes of a file; of a header that is cut off, the pairs before the cut.

    Raises:
        ValueError: no GGUF file of version 2 or 3.
    """
    if not data.startswith(MAGIC):
        raise ValueError(f"a GGUF file begins with {MAGIC!r}, this one with {data[:4]!r}")
    reader = _Reader(data)
    found: dict[str, Any] = {}
    try:
        reader.take(4)
        version = reader.number("<I")
        if version not in (2, 3):
            raise ValueError(f"GGUF version 2 or 3 is expected, got {version}")
        reader.number("<Q")  # number of tensors
        for _ in range(min(reader.number("<Q"), _PAIRS_MAX)):
            key = reader.string()
            found[key] = reader.value(reader.number("<I"))
    except _Truncated:
        pass
    except RecursionError:
        raise ValueError("the GGUF header nests arrays too deeply") from None
    return found


def read_shape(metadata: Mapping[str, Any]) -> ModelShape:
    """The model's shape from the header's metadata. Its weights are as large as the file.

    Raises:
        ValueError: layers or width are missing.
    """
    family = str(metadata.get("general.architecture") or "unknown")

    def whole(name: str, default: int = 0) -> int:
        number = finite(metadata.get(f"{family}.{name}"))
        return int(number) if number is not None and number > 0 else default

    layers, hidden, heads = whole("block_count"), whole("embedding_length"), whole("attention.head_count", 1)
    if not layers or not hidden:
        raise ValueError(f"the GGUF header has no {family}.block_count or {family}.embedding_length")
    given = metadata.get(f"{family}.attention.head_count_kv")
    per_layer = [int(each) for each in given if isinstance(each, int)] if isinstance(given, list) else []
    kv_heads = max(per_layer, default=0) or whole("attention.head_count_kv", heads)
    kv_heads_total = sum(per_layer) if per_layer else layers * kv_heads
    key = whole("attention.key_length", hidden // heads)
    value = whole("attention.value_length", hidden // heads)
    tokens = metadata.get("tokenizer.ggml.tokens")
    return ModelShape(
        architecture=family,
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=kv_heads,
        kv_values_per_token=float(kv_heads_total * (key + value)),
        intermediate=whole("feed_forward_length", 4 * hidden),
        vocabulary=whole("vocab_size", len(tokens) if isinstance(tokens, list) else 0),
        context_max=whole("context_length") or None,
    )
