"""Parsing of bytes into events, wherever the network cuts them."""

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

import stoker
from stoker.requests import events as events_module
from stoker.requests.events import Event, LineParser, SseParser, parser_for


def parse(parser: SseParser | LineParser, *chunks: bytes) -> list[Event]:
    found = [event for chunk in chunks for event in parser.feed(chunk)]
    return found + parser.close()


def cut(data: bytes, places: list[int]) -> list[bytes]:
    marks = sorted({place % (len(data) + 1) for place in places} | {0, len(data)})
    return [data[start:end] for start, end in itertools.pairwise(marks)]


def test_data_lines_of_one_event_are_joined():
    assert parse(SseParser(), b"data: a\ndata: b\n\n") == [Event("a\nb")]


def test_an_events_id_applies_to_later_events():
    found = parse(SseParser(), b"id: 7\nevent: delta\ndata: a\n\ndata: b\n\n")
    assert found == [Event("a", "delta", "7"), Event("b", "message", "7")]


def test_comments_unknown_fields_and_events_without_data_are_no_events():
    assert parse(SseParser(), b": ping\n\nretry: 3\nfoo: bar\nevent: x\n\ndata: a\n\n") == [Event("a")]


def test_one_blank_after_the_colon_is_removed():
    assert parse(SseParser(), b"data:a\n\ndata:  b\n\ndata\n\n") == [Event("a"), Event(" b"), Event("")]


def test_the_three_line_ends_are_equivalent():
    want = [Event("a\nb")]
    for end in (b"\n", b"\r", b"\r\n"):
        assert parse(SseParser(), b"data: a" + end + b"data: b" + end + end) == want


def test_a_line_end_cut_in_two_is_one_line_end():
    assert parse(SseParser(), b"data: a\r", b"\ndata: b\r", b"\n\r", b"\n") == [Event("a\nb")]


def test_a_byte_order_mark_is_dropped_even_in_pieces():
    assert parse(SseParser(), b"\xef", b"\xbb", b"\xbfdata: a\n\n") == [Event("a")]


def test_the_last_event_needs_no_blank_line():
    assert parse(SseParser(), b"data: a\n\ndata: b") == [Event("a"), Event("b")]


def test_json_lines_are_events_and_blank_lines_are_not():
    assert parse(LineParser(), b'{"a":1}\r\n\n{"b', b'":2}\n{"c":3}') == [
        Event('{"a":1}'),
        Event('{"b":2}'),
        Event('{"c":3}'),
    ]


@pytest.mark.parametrize(
    ("kind", "first", "parser"),
    [
        ("text/event-stream", b"", SseParser),
        ("application/x-ndjson", b"data: no", LineParser),
        ("application/jsonl", b"", LineParser),
        ("application/json", b"", LineParser),
        ("", b"data: x", SseParser),
        ("text/plain", b": ping", SseParser),
        ("text/plain", b'{"a": 1}', LineParser),
    ],
)
def test_the_content_type_else_the_first_bytes_choose_the_parser(kind, first, parser):
    assert type(parser_for(kind, first)) is parser


def test_an_event_without_an_end_is_bounded(monkeypatch):
    monkeypatch.setattr(events_module, "EVENT_BYTES_MAX", 10)
    for parser in (SseParser(), LineParser()):
        with pytest.raises(stoker.MalformedAnswer, match="without an end"):
            parser.feed(b"data: 0123456789")


def test_an_event_of_data_lines_without_an_end_is_bounded(monkeypatch):
    monkeypatch.setattr(events_module, "EVENT_BYTES_MAX", 100)
    parser = SseParser()
    assert len(parser.feed(b"data: 01234\n\n" * 50)) == 50  # finished events do not count
    for line in (b"data: 01234\n", b"data:\n"):
        with pytest.raises(stoker.MalformedAnswer, match="without an end"):
            SseParser().feed(line * 50)


def test_data_that_is_not_json_is_malformed():
    with pytest.raises(stoker.MalformedAnswer, match="hello"):
        Event("hello").json()
    assert Event('{"a": 1}').json() == {"a": 1}


texts = st.text(st.characters(codec="utf-8", exclude_characters="\r\n"))


@given(
    st.lists(st.tuples(st.lists(texts, min_size=1, max_size=3), st.sampled_from(["\n", "\r\n", "\r"]))),
    st.lists(st.integers(0, 10_000), max_size=20),
    st.booleans(),
)
def test_events_are_read_as_written_wherever_the_bytes_are_cut(written, places, bom):
    data = b"\xef\xbb\xbf" if bom else b""
    for lines, end in written:
        data += "".join(f"data: {line}{end}" for line in lines).encode() + end.encode()
    want = [Event("\n".join(lines)) for lines, _ in written]
    assert parse(SseParser(), *cut(data, places)) == want


@given(st.lists(st.dictionaries(st.text(), st.integers())), st.lists(st.integers(0, 10_000), max_size=20))
def test_json_lines_are_read_as_written_wherever_the_bytes_are_cut(written, places):
    data = "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in written).encode()
    assert [event.json() for event in parse(LineParser(), *cut(data, places))] == written


@given(st.binary(), st.lists(st.integers(0, 10_000), max_size=20))
def test_any_bytes_can_be_parsed_and_cuts_change_nothing(data, places):
    for make in (SseParser, LineParser):
        assert parse(make(), *cut(data, places)) == parse(make(), data)
