"""The examples run unchanged."""

import asyncio
import os
import sys
from pathlib import Path

import pytest
from aiohttp import web

from tests.sdk.peers import ACCOUNT_KEY, Peers, chunks, json_reply

EXAMPLES = Path(__file__).parents[2] / "examples" / "client"
TEXT = {"choices": [{"text": "shovelled on"}]}


async def run(peers: Peers, name: str) -> str:
    environ = os.environ | {"STOKER_URL": peers.url, "STOKER_API_KEY": ACCOUNT_KEY, "TEMPLATE_HASH": "abc"}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(EXAMPLES / name),
        env=environ,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert (process.returncode, err.decode()) == (0, "")
    return out.decode()


async def serve(request: web.Request, body) -> web.StreamResponse:
    if request.path == "/session/create":
        return await json_reply({"session_id": "s-1"}, 201)(request, body)
    if body.get("payload", {}).get("stream"):
        return await chunks(b'data: {"choices": [{"text": "shovel"}]}\n\ndata: [DONE]\n\n')(request, body)
    return await json_reply(TEXT)(request, body)


@pytest.mark.parametrize(
    ("name", "count"),
    [("one_request.py", 1), ("many.py", 200), ("session.py", 2), ("without_asyncio.py", 2)],
)
async def test_an_example_prints_the_answers(peers, name, count):
    peers.worker_reply = serve
    assert (await run(peers, name)).count("shovelled on") == count


async def test_the_stream_example_prints_tokens_and_times(peers):
    peers.worker_reply = serve
    output = await run(peers, "stream.py")
    assert output.startswith("shovel\nfirst byte after ")


async def test_the_management_example_creates_an_endpoint_once(peers):
    async def create(request, body):
        peers.endpoint("my-endpoint", 9)
        return await json_reply({"success": True, "result": 9})(request, body)

    peers.console_replies |= {
        ("POST", "/api/v0/endptjobs/"): create,
        ("POST", "/api/v0/workergroups/"): json_reply({"success": True, "id": 5}),
        ("GET", "/api/v0/workergroups/"): json_reply(
            {"success": True, "results": [{"id": 5, "endpoint_id": 9}]}
        ),
        ("POST", "/get_endpoint_workers/"): json_reply([{"id": 41, "status": "idle", "measured_perf": 8.5}]),
        ("GET", "/api/v0/endptjobs/9/decisions/"): json_reply(
            {"decisions": [{"kind": "recruit", "reason": "no worker yet"}]}
        ),
    }
    for _ in range(2):
        output = await run(peers, "manage.py")
        assert "41 idle 8.5" in output
        assert "recruit no worker yet" in output
        assert peers.endpoint_key not in output
    assert [
        called
        for called, seen in peers.console_calls
        if called == "POST" and seen.path == "/api/v0/endptjobs/"
    ] == ["POST"]
