"""Payloads as JSON of pydantic types, like `temporalio.contrib.pydantic`, with cached type adapters.

A plan's `TypeAdapter` takes 10 ms of CPU to build and 130 KiB of memory. Each workflow has its own converter, so a
thousand endpoints would build and keep a thousand of them.
"""

import dataclasses
import functools
from typing import Any

from pydantic import TypeAdapter
from temporalio.api.common.v1 import Payload
from temporalio.contrib.pydantic import PydanticJSONPlainPayloadConverter, pydantic_data_converter
from temporalio.converter import CompositePayloadConverter, DefaultPayloadConverter, JSONPlainPayloadConverter

_reader = functools.lru_cache(maxsize=1024)(TypeAdapter)


class _Json(PydanticJSONPlainPayloadConverter):
    """The same bytes; read by readers that all converters of the process share."""

    def from_payload(self, payload: Payload, type_hint: type | None = None) -> Any:
        """The payload's value as its type."""
        wanted: Any = Any if type_hint is None else type_hint
        try:
            reader = _reader(wanted)
        except TypeError:  # a hint without a hash
            reader = TypeAdapter(wanted)
        return reader.validate_json(payload.data)


class SharedReaders(CompositePayloadConverter):
    """The default converters, JSON read and written by pydantic."""

    def __init__(self) -> None:
        json = _Json()
        super().__init__(
            *(
                json if isinstance(each, JSONPlainPayloadConverter) else each
                for each in DefaultPayloadConverter.default_encoding_payload_converters
            )
        )


data_converter = dataclasses.replace(pydantic_data_converter, payload_converter_class=SharedReaders)
"""Of every client and worker of a deployment."""
