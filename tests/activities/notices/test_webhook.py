"""A webhook is one signed POST per notice, and every fault of a receiver ends in a sentence without its address."""

import asyncio
import base64
import hashlib
import hmac
import json
import socket
import ssl
import struct

import pytest
from aiohttp import web

from activities.notices.errors import NotDelivered
from activities.notices.webhook import Webhook, is_forbidden, signing_key
from tests.activities.notices.receivers import HttpReceiver

KEY = bytes(range(32))
SECRET = "whsec_" + base64.b64encode(KEY).decode()
NOW = 1_772_490_123.9


def webhook(url: str, **changes: object) -> Webhook:
    return Webhook(url=url, key=signing_key(SECRET), now=lambda: NOW, **changes)  # type: ignore[arg-type]


async def refused(channel: Webhook, notice) -> NotDelivered:
    with pytest.raises(NotDelivered) as caught:
        await channel.deliver([notice()])
    assert "very-secret" not in str(caught.value)
    assert "127.0.0.1" not in str(caught.value)
    return caught.value


async def test_a_notice_arrives_signed_over_its_id_its_time_and_its_body(receiver, notice):
    await webhook(receiver.url).deliver([notice(subject='a "name"\n\x1b[31m')])
    (request,) = receiver.requests
    assert request.headers["webhook-id"] == "abc.firing"
    assert request.headers["webhook-timestamp"] == "1772490123"
    signed = b"abc.firing.1772490123." + request.body
    expected = base64.b64encode(hmac.new(KEY, signed, hashlib.sha256).digest()).decode()
    assert request.headers["webhook-signature"] == f"v1,{expected}"
    body = json.loads(request.body)
    assert body["type"] == "StokerNoCapacity.firing"
    assert body["timestamp"] == "2026-03-02T22:20:00Z"
    assert body["data"]["subject"] == 'a "name"\n\x1b[31m'
    assert b"\x1b" not in request.body  # JSON escapes it


async def test_every_try_has_the_same_id_and_body_and_a_time_of_its_own(receiver, notice):
    receiver.answers = [500]
    await refused(webhook(receiver.url), notice)
    later = Webhook(url=receiver.url, key=KEY, now=lambda: NOW + 60)
    await later.deliver([notice()])
    first, second = receiver.requests
    assert first.body == second.body
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert int(second.headers["webhook-timestamp"]) - int(first.headers["webhook-timestamp"]) == 60


@pytest.mark.parametrize(("status", "final"), [(500, False), (503, False), (401, False), (404, False), (400, True), (410, True), (422, True)])  # fmt: skip
async def test_an_answer_about_the_notice_is_final_and_one_about_the_receiver_is_not(
    receiver, notice, status, final
):
    receiver.answers = [status]
    error = await refused(webhook(receiver.url), notice)
    assert (str(error), error.final) == (f"the receiver answered {status}", final)


async def test_a_redirect_is_not_followed(receiver, notice):
    async with HttpReceiver() as target:
        receiver.answers, receiver.headers = [307], {"Location": target.url}
        error = await refused(webhook(receiver.url), notice)
        assert target.requests == []
    assert str(error) == "the receiver answered 307, a redirect; set the url to its target"
    assert not error.final


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("7", 7.0), ("999999", 3600.0), ("soon", None), ("-1", None), ("9" * 5000, 3600.0)],
)
async def test_the_time_of_retry_after_is_taken_over_within_limits(receiver, notice, header, seconds):
    receiver.answers, receiver.headers = [503], {"Retry-After": header}
    assert (await refused(webhook(receiver.url), notice)).retry_after_seconds == seconds


async def test_a_receiver_that_hangs_is_given_up(receiver, notice):
    async def hang(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(60)
        return web.Response()

    receiver.answers = [hang]
    error = await refused(webhook(receiver.url, try_seconds_max=0.5), notice)
    assert str(error) == "the receiver did not answer within 0 s"


async def test_a_giant_answer_is_not_read(receiver, notice):
    sent = 0

    async def flood(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        answer = web.StreamResponse()
        await answer.prepare(request)
        for _ in range(4096):  # 1 GiB
            await answer.write(bytes(256 * 1024))
            sent += 1
        return answer

    receiver.answers = [flood]
    await webhook(receiver.url).deliver([notice()])
    assert sent < 1000


async def raw_server(answer: bytes) -> tuple[asyncio.Server, str]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    return server, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/very-secret"


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 200_000 + b"\r\n\r\n",
        b"HTTP/1.1 99999999 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
        b"\x16\x03\x01\x02\x00",
    ],
)
async def test_an_answer_that_is_no_http_is_an_error(notice, answer):
    server, url = await raw_server(answer)
    async with server:
        error = await refused(webhook(url), notice)
    assert str(error).startswith("the receiver did not answer in HTTP")
    assert not error.final


async def test_a_reset_connection_is_an_error(notice):
    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        found = writer.get_extra_info("socket")
        found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.close()

    server = await asyncio.start_server(reset, "127.0.0.1", 0)
    async with server:
        await refused(webhook(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"), notice)


async def test_a_closed_port_is_an_error(notice):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/"
    assert str(await refused(webhook(url), notice)) == "no connection to the receiver: Connection refused"


@pytest.fixture
def server_tls(certificate) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


async def test_a_certificate_of_an_unknown_authority_is_refused(server_tls, notice):
    async with HttpReceiver(server_tls) as receiver:
        error = await refused(webhook(receiver.url), notice)
        assert receiver.requests == []
    assert str(error).startswith("the receiver's certificate is not valid: ")


async def test_a_certificate_of_the_configured_authority_is_accepted(server_tls, certificate, notice):
    async with HttpReceiver(server_tls) as receiver:
        await webhook(receiver.url, tls=ssl.create_default_context(cafile=certificate)).deliver([notice()])
        assert len(receiver.requests) == 1


async def test_tls_to_a_port_without_it_is_an_error(receiver, notice):
    error = await refused(webhook(receiver.url.replace("http:", "https:")), notice)
    assert "TLS" in str(error)


@pytest.mark.parametrize(
    ("address", "forbidden"),
    [
        ("169.254.169.254", True),
        ("fe80::1", True),
        ("fe80::1%eth0", True),
        ("::ffff:169.254.169.254", True),
        ("fd00:ec2::254", True),
        ("100.100.100.200", True),
        ("0.0.0.0", True),
        ("224.0.0.1", True),
        ("127.0.0.1", False),
        ("10.0.0.1", False),
        ("fd00::1", False),
        ("93.184.216.34", False),
    ],
)
def test_metadata_services_are_no_receivers(address, forbidden):
    assert is_forbidden(address) is forbidden


@pytest.mark.parametrize("host", ["2852039166", "0xa9fea9fe", "0251.0376.0251.0376", "169.254.43518"])
async def test_a_name_that_is_a_metadata_service_s_number_is_refused_at_delivery(host, notice):
    error = await refused(webhook(f"http://{host}/latest/meta-data/"), notice)
    assert "allowed address" in str(error) or "not valid" in str(error)


async def test_a_name_that_leads_to_a_metadata_service_is_refused_at_delivery(notice, monkeypatch):
    def leads_to_metadata(host, port, *rest, **how):
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("169.254.169.254", port))]

    monkeypatch.setattr(socket, "getaddrinfo", leads_to_metadata)
    error = await refused(webhook("http://metadata.example.org/latest/meta-data/"), notice)
    assert str(error) == "the receiver's name is unknown, or leads to no allowed address"


@pytest.mark.parametrize(
    ("secret", "said"),
    [
        ("", "is missing"),
        ("hunter2hunter2hunter2hunter2", "should begin with whsec_"),
        ("whsec_no base64!", "should be base64"),
        ("whsec_c2hvcnQ=", "should have 24 to 64 bytes, got 5"),
        ("whsec_é", "should be base64"),
    ],
)
def test_a_bad_secret_is_described_and_not_quoted(secret, said):
    with pytest.raises(ValueError, match=said) as caught:
        signing_key(secret)
    assert "hunter2" not in str(caught.value)
