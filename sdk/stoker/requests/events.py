"""Parses the bytes of a stream into events: server-sent events (the WHATWG rules) and JSON lines. No I/O."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from stoker.errors import MalformedAnswer
from stoker_wire.parsing.strict_json import NotJson, parse_answer

EVENT_BYTES_MAX = 64 * 2**20
"""Bound on one event, against a peer that never ends its line."""

_LINE_END = re.compile(rb"\r\n|\n|\r")
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a stream."""

    data: str
    """The text. Several `data` lines of a server-sent event are joined by newlines."""
    event: str = "message"
    id: str = ""

    def json(self) -> Any:
        """The data as JSON.

        Raises:
            MalformedAnswer: the data is not JSON.
        """
        try:
            return parse_answer(self.data)
        except NotJson as fault:
            raise MalformedAnswer(
                f"expected JSON in a stream event, got {self.data[:80]!r} ({fault}); use .data"
            ) from None

    @property
    def done(self) -> bool:
        """Whether this is the `[DONE]` with which OpenAI-style streams end."""
        return self.data.strip() == "[DONE]"


class LineParser:
    """One event per line that is not blank: JSON lines, or any other text."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, chunk: bytes) -> list[Event]:
        """The events that this chunk completes."""
        self._rest += chunk
        if b"\n" not in chunk:
            _bound(len(self._rest))
            return []
        *lines, rest = bytes(self._rest).split(b"\n")
        self._rest = bytearray(rest)
        return [Event(text) for line in lines if (text := line.decode("utf-8", "replace").strip())]

    def close(self) -> list[Event]:
        """The event that is incomplete at the end of the stream; the last line needs no newline."""
        text = self._rest.decode("utf-8", "replace").strip()
        self._rest.clear()
        return [Event(text)] if text else []


class SseParser:
    """Server-sent events: several `data` lines make one event, a blank line ends it."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._data: list[str] = []
        self._held = 0
        """Characters of the lines in `_data`."""
        self._event = ""
        self._id = ""
        self._at_start = True
        self._searched = 0

    def feed(self, chunk: bytes) -> list[Event]:
        """The events that this chunk completes."""
        self._rest += chunk
        if self._at_start and not self._skip_bom():
            return []
        events: list[Event] = []
        start = 0
        for end in _LINE_END.finditer(self._rest, self._searched):
            if end.group() == b"\r" and end.end() == len(self._rest):
                break  # its "\n" may be in the next chunk
            self._line(self._rest[start : end.start()].decode("utf-8", "replace"), events)
            start = end.end()
        del self._rest[:start]
        self._searched = len(self._rest) - self._rest.endswith(b"\r")
        _bound(self._held + len(self._rest))
        return events

    def close(self) -> list[Event]:
        """The event that is incomplete at the end of the stream; many servers omit the last blank line."""
        events: list[Event] = []
        if self._at_start:
            self._at_start = False
        text = self._rest.decode("utf-8", "replace").rstrip("\r")
        self._rest.clear()
        if text:
            self._line(text, events)
        self._line("", events)
        return events

    def _skip_bom(self) -> bool:
        """Remove a byte order mark. False while the first bytes may still become one."""
        if len(self._rest) < len(_BOM) and _BOM.startswith(self._rest):
            return False
        self._at_start = False
        if self._rest.startswith(_BOM):
            del self._rest[: len(_BOM)]
        return True

    def _line(self, line: str, events: list[Event]) -> None:
        if not line:
            if self._data:
                events.append(Event("\n".join(self._data), self._event or "message", self._id))
            self._data, self._held, self._event = [], 0, ""
            return
        name, _, value = line.partition(":")  # a comment is a line whose name is empty
        value = value.removeprefix(" ")
        if name == "data":
            self._held += len(line)  # with the name: lines without a value take memory too
            _bound(self._held)
            self._data.append(value)
        elif name == "event":
            self._event = value
        elif name == "id" and "\0" not in value:
            self._id = value


EventParser = SseParser | LineParser


def parser_for(media_type: str, first_bytes: bytes) -> EventParser:
    """The parser for a content type; without a telling type, by the first bytes of the stream."""
    if media_type == "text/event-stream":
        return SseParser()
    if "json" in media_type or "ndjson" in media_type:
        return LineParser()
    begins = first_bytes.removeprefix(_BOM).lstrip()
    return SseParser() if begins.startswith((b"data:", b"event:", b"id:", b":", b"retry:")) else LineParser()


def _bound(held: int) -> None:
    if held > EVENT_BYTES_MAX:
        raise MalformedAnswer(
            f"a stream event passed {EVENT_BYTES_MAX >> 20} MiB without an end; "
            "if this is not a stream of events, use .bytes()"
        )
