"""Multipart forms, parsed by the standard library."""

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


def test_a_file_keeps_its_name_type_and_content():
    content = bytes(range(256))
    assert parts({"file": ("a b.bin", content, "image/png")}) == [("file", "a b.bin", "image/png", content)]


@pytest.mark.parametrize(
    ("value", "sent"),
    [("text", b"text"), (1.5, b"1.5"), (True, b"true"), (False, b"false"), ({"a": [1]}, b'{"a": [1]}')],
)
def test_other_values_are_sent_as_text(value, sent):
    assert parts({"field": value}) == [("field", None, "text/plain", sent)]


def test_a_list_repeats_its_field_and_none_is_omitted():
    assert [(part[0], part[3]) for part in parts({"tag": ["a", None, ["b"]], "gone": None})] == [
        ("tag", b"a"),
        ("tag", b'["b"]'),
    ]


def test_quotes_and_line_ends_in_names_are_escaped():
    body, _ = multipart.encode({'a"; filename="x\r\nEvil: 1': ("n\r\nEvil: 2", b"", "text/plain\r\nEvil: 3")})
    assert not [line for line in body.split(b"\r\n") if line.startswith(b"Evil")]


def test_bytes_without_a_file_name_are_refused():
    with pytest.raises(multipart.FormError, match="photo"):
        multipart.encode({"photo": b"\x00"})
