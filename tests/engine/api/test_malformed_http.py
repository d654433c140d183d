"""Malformed HTTP is answered with a problem."""

import asyncio
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.engine.conftest import Stage

CA_PEM = ec.generate_private_key(ec.SECP256R1()).private_bytes(
    Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
)


async def exchange(stage: Stage, sent: bytes) -> tuple[int, Any]:
    """Status and body of the response to these bytes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", stage.server.port)
    writer.write(sent)
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    return int(head.split()[1]), json.loads(body)


async def test_a_key_that_is_not_text_gets_no_certificate(bare_stage: Stage) -> None:
    await bare_stage.start_engine(ca_key_pem=CA_PEM)
    endpoint = await bare_stage.endpoint()
    await endpoint.script(groups=[1], members=[endpoint.worker().member(a="10.0.0.9:3000")])
    sent = b"POST /api/v0/sign_cert/?instance_id=101 HTTP/1.1\r\nHost: e\r\nConnection: close\r\nContent-Length: 0\r\n"
    status, body = await exchange(bare_stage, sent + b"Authorization: Bearer \xed\xa0\x80\xff\r\n\r\n")
    assert (status, body["error"]) == (403, "not_the_instance")


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (b"NOT HTTP\r\n\r\n", "malformed_http"),
        (b"\x16\x03\x01\x02\x00\r\n", "malformed_http"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "header_repeated"),
        (b"GET / HTTP/1.1\r\nA\x00: 2\r\n\r\n", "malformed_http"),
    ],
)
async def test_malformed_http_is_answered_with_a_problem(stage: Stage, sent: bytes, code: str) -> None:
    status, body = await exchange(stage, sent)
    assert (status, body["error"]) == (400, code)
    assert body["msg"] == body["error_msg"]
