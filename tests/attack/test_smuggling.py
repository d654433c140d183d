"""Requests that two HTTP parsers could interpret differently are refused, and a smuggled request is not answered."""

import asyncio

import pytest

from tests.attack.conftest import SERVERS, answers_in, problem_in

HIDDEN = b"GET /smuggled HTTP/1.1\r\nHost: w\r\nConnection: close\r\n\r\n"
EMPTY_CHUNKED = b"0\r\n\r\n"

FIELDS = {
    "length and chunked": (b"Content-Length: 4\r\nTransfer-Encoding: chunked", EMPTY_CHUNKED),
    "chunked and length": (b"Transfer-Encoding: chunked\r\nContent-Length: 4", EMPTY_CHUNKED),
    "two lengths": (b"Content-Length: 3\r\nContent-Length: 4", b"abcd"),
    "the same length twice": (b"Content-Length: 3\r\nContent-Length: 3", b"abc"),
    "a list of lengths": (b"Content-Length: 3, 3", b"abc"),
    "a signed length": (b"Content-Length: +3", b"abc"),
    "a negative length": (b"Content-Length: -1", b""),
    "a hexadecimal length": (b"Content-Length: 0x3", b"abc"),
    "an underscored length": (b"Content-Length: 0_3", b"abc"),
    "an endless length": (b"Content-Length: 99999999999999999999999", b"abc"),
    "a blank before the colon of a length": (b"Content-Length : 3", b"abc"),
    "a blank before the colon of a coding": (b"Transfer-Encoding : chunked", EMPTY_CHUNKED),
    "xchunked": (b"Transfer-Encoding: xchunked", EMPTY_CHUNKED),
    "identity": (b"Transfer-Encoding: identity", b""),
    "gzip, chunked": (b"Transfer-Encoding: gzip, chunked", EMPTY_CHUNKED),
    "chunked, gzip": (b"Transfer-Encoding: chunked, gzip", EMPTY_CHUNKED),
    "chunked twice": (b"Transfer-Encoding: chunked, chunked", EMPTY_CHUNKED),
    "two codings": (b"Transfer-Encoding: xchunked\r\nTransfer-Encoding: chunked", EMPTY_CHUNKED),
    "a coding behind a control character": (b"Transfer-Encoding: \x0bchunked", EMPTY_CHUNKED),
    "a folded field": (b"X: a\r\n b", b""),
    "a coding in a folded line": (b"Transfer-Encoding:\r\n chunked", EMPTY_CHUNKED),
    "a bare line feed between fields": (b"X: a\nContent-Length: 3", b"abc"),
    "a bare carriage return": (b"X: a\rContent-Length: 3", b"abc"),
    "a null": (b"X: a\x00b", b""),
    "a nameless field": (b": a", b""),
    "a name with a blank": (b"X Y: a", b""),
    "two hosts": (b"Host: elsewhere", b""),
    "the same host twice": (b"Host: w", b""),
    "an upgrade": (b"Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 3", b"abc"),
}
CHUNKS = {
    "a chunk extension with a line feed": b"3;a\nbc\r\nabc\r\n0\r\n\r\n",
    "bare line feeds around chunks": b"3\nabc\n0\n\n",
    "a negative chunk": b"-3\r\nabc\r\n0\r\n\r\n",
    "a chunk of 0x3": b"0x3\r\nabc\r\n0\r\n\r\n",
    "a chunk longer than any number": b"fffffffffffffffff\r\nabc",
    "a chunk without its end": b"3\r\nabcX\r\n0\r\n\r\n",
}
WHOLE = {
    "a bare line feed after the request line": b"POST /x HTTP/1.1\nHost: w\n\n",
    "a folded first field": b"POST /x HTTP/1.1\r\n Host: w\r\n\r\n",
    "a blank in the target": b"GET /x y HTTP/1.1\r\nHost: w\r\n\r\n",
    "no host": b"POST /x HTTP/1.1\r\n\r\n",
    "chunked in HTTP/1.0": b"POST /x HTTP/1.0\r\nHost: w\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a tunnel": b"CONNECT a:1 HTTP/1.1\r\nHost: w\r\n\r\n",
}


@pytest.mark.parametrize("name", SERVERS)
async def test_an_ambiguous_request_is_refused_and_the_rest_is_not_answered(target, name):
    server = await target(name)
    cases = {case: server.head() + fields + b"\r\n\r\n" + body for case, (fields, body) in FIELDS.items()}
    chunked = server.head("Transfer-Encoding: chunked", "")
    cases |= {case: chunked + chunks for case, chunks in CHUNKS.items()}
    cases |= WHOLE
    wrong = {}
    for case, sent in cases.items():
        answer = await server.say(sent + HIDDEN)
        try:
            status, code = problem_in(answer)
            assert 400 <= status < 500, status
            assert code != "not_found"
            assert b"smuggled" not in answer
        except (AssertionError, ValueError) as fault:
            wrong[case] = str(fault)[:300]
    assert wrong == {}
    assert await server.serves()


@pytest.mark.parametrize("name", SERVERS)
async def test_a_body_cut_into_chunks_with_extensions_is_one_body(target, name):
    server = await target(name)
    body = b'1;name=value\r\n{\r\n1;x="a;b"\r\n}\r\n0;last\r\n\r\n'
    answer = await server.say(server.head("Transfer-Encoding: chunked", "Connection: close", "") + body)
    assert answers_in(answer) == 1
    assert b"malformed" not in answer


@pytest.mark.parametrize("name", SERVERS)
@pytest.mark.parametrize("sent", [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"canary-5f\r\n\r\n"])
async def test_a_refusal_repeats_no_input(target, name, sent, capfd):
    server = await target(name)
    answer = await server.say(sent)
    assert problem_in(answer) == (400, "malformed_http")
    assert b"canary" not in answer
    assert "canary" not in "".join(capfd.readouterr())


@pytest.mark.parametrize("name", ["engine", "market"])
async def test_a_packed_body_is_refused_before_it_is_unpacked(target, name):
    server = await target(name)
    packed = server.head("Content-Encoding: gzip", "Content-Length: 3", "") + b"abc"
    assert problem_in(await server.say(packed)) == (415, "content_encoding_unsupported")


OFFER = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA"


@pytest.mark.parametrize("name", SERVERS)
async def test_an_offer_of_http2_is_ignored_and_its_body_is_read(target, name):
    server = await target(name)
    reader, writer = await server.connect()
    async with asyncio.timeout(20):
        for close in ("", "Connection: close\r\n"):
            writer.write(
                server.head(close + (OFFER if not close else "X: y"), "Content-Length: 2", "") + b"{}"
            )
            head = await reader.readuntil(b"\r\n\r\n")
            assert b"HTTP/1.1 101" not in head
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            assert b"upgrade_unsupported" not in await reader.readexactly(length)
        assert await reader.read() == b""
    writer.close()
    assert await server.serves()


@pytest.mark.parametrize("name", SERVERS)
async def test_curl_that_offers_http2_is_answered(target, name):
    server = await target(name)
    command = [
        "curl",
        "--silent",
        "--http2",
        "--data",
        "{}",
        f"http://127.0.0.1:{server.port}{server.body_path}",
    ]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    answer, _ = await process.communicate()
    assert process.returncode == 0
    assert answer
    assert b"upgrade_unsupported" not in answer
