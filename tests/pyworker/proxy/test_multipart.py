"""Multipart forms for the model, read back by another implementation."""

import email.parser
import email.policy

import pytest

from stoker_pyworker.proxy import multipart


def parts(fields):
    body, kind = multipart.encode(fields)
    text = b"Content-Type: " + kind + b"\r\n\r\n" + body
    message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(text)
    return [
        (
            part.get_param("name", header="content-disposition"),
            part.get_filename(),
            part.get_content_type(),
            part.get_payload(decode=True),
        )
        for part in message.iter_parts()
    ]


def test_a_file_keeps_its_name_its_type_and_every_byte():
    content = bytes(range(256))
    assert parts({"file": ("a b.bin", content, "image/png")}) == [("file", "a b.bin", "image/png", content)]


@pytest.mark.parametrize(
    ("value", "sent"),
    [("text", b"text"), (1.5, b"1.5"), (True, b"true"), (False, b"false"), ({"a": [1]}, b'{"a": [1]}')],
)
def test_what_is_no_file_is_sent_as_text(value, sent):
    assert parts({"field": value}) == [("field", None, "text/plain", sent)]


def test_a_list_repeats_its_field_and_none_is_left_out():
    assert [(part[0], part[3]) for part in parts({"tag": ["a", None, ["b"]], "gone": None})] == [
        ("tag", b"a"),
        ("tag", b'["b"]'),
    ]


def test_a_name_cannot_end_its_quotes_or_its_line():
    body, _ = multipart.encode({'a"; filename="x\r\nEvil: 1': ("n\r\nEvil: 2", b"", "text/plain\r\nEvil: 3")})
    assert not [line for line in body.split(b"\r\n") if line.startswith(b"Evil")]


def test_bare_bytes_are_refused_by_the_fields_name():
    with pytest.raises(multipart.FormError, match="photo"):
        multipart.encode({"photo": b"\x00"})
