"""Multipart forms, parsed by the standard library."""

import email.parser
import email.policy

import httpx
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


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"text": "a\r\nb", "größe": "ü", 'q"u\r\no': "--x"},
        {"file": ("a b.bin", bytes(range(256)) + b"\r\n--", "image/png"), "note": ""},
        {"tag": ["a", "b", "c"], "files": [("1", b"", "text/plain"), ("2", b"\r\n", "text/plain")]},
    ],
)
def test_a_form_that_was_encoded_is_read_back(fields):
    body, kind = multipart.encode(fields)
    assert multipart.decode(body, kind) == fields


async def test_a_form_of_a_client_library_is_read():
    request = httpx.Request(
        "POST",
        "http://x",
        files={"audio": ("ä.wav", b"RIFF\x00\xff", "audio/wav")},
        data={"lang": "en", "n": ["1", "2"]},
    )
    form = multipart.decode(request.read(), request.headers["content-type"].encode())
    assert form["audio"][1:] == (b"RIFF\x00\xff", "audio/wav")
    assert (form["lang"], form["n"]) == ("en", ["1", "2"])


@pytest.mark.parametrize("kind", [b"application/json", b"text/plain; boundary=x", b""])
def test_other_content_types_are_no_form(kind):
    assert multipart.decode(b"--x--", kind) is None


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", b"multipart/form-data; boundary=x"),
        (b"--x\r\n", b"multipart/form-data; boundary=x"),
        (b"--x--", b"multipart/form-data"),
        (b"--x\r\nContent-Disposition: form-data\r\n\r\n1\r\n--x--", b"multipart/form-data; boundary=x"),
        (b"--x\r\n\r\n1\r\n--x--", b'multipart/form-data; boundary="x"'),
        (
            b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n\xff\r\n--x--',
            b"multipart/form-data; boundary=x",
        ),
        (b"--x\r\n" * 1002, b"multipart/form-data; boundary=x"),
    ],
)
def test_a_damaged_form_is_an_error(body, kind):
    with pytest.raises(multipart.FormError):
        multipart.decode(body, kind)


def test_bytes_without_a_file_name_are_refused():
    with pytest.raises(multipart.FormError, match="photo"):
        multipart.encode({"photo": b"\x00"})
