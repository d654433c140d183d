"""Vast's official client: it routes, and sends JSON to the worker itself. It has no GET and no forms."""

import asyncio
import os

from report import ENDPOINT, MESSAGES, MODEL, SPEECH_BYTES, WEATHER, call, expect, run_all, slow
from vastai import Serverless

ENGINE, ACCOUNT_KEY = os.environ["ENGINE"], os.environ["ACCOUNT_KEY"]
CHAT = "/v1/chat/completions"


class Client(Serverless):
    """The official client with stoker's certificate authority for Vast's: a class attribute, no code changed."""

    SSL_CERT_URL = f"{ENGINE}/static/jvastai_root.cer"


async def ask(endpoint, path=CHAT, *, cost=100, stream=False, **payload):
    answer = await endpoint.request(path, {"model": MODEL} | payload, cost=cost, stream=stream)
    assert stream or answer["ok"], answer
    return answer["response"]


@call("chat")
async def _chat(client, endpoint):
    answer = await ask(endpoint, messages=MESSAGES, max_tokens=4000, cost=4000)
    expect(answer["choices"][0]["message"]["content"], "hello")


@call("completions")
async def _completions(client, endpoint):
    answer = await ask(endpoint, "/v1/completions", prompt="hello")
    expect(answer["choices"][0]["text"], "hello")


def payload_of(**more):
    return {"model": MODEL, "messages": MESSAGES, "stream": True} | more


@call("stream")
async def _stream(client, endpoint):
    answer = await endpoint.request(CHAT, payload_of(), cost=100, stream=True)
    words = [one["choices"][0]["delta"]["content"] async for one in answer["response"]]
    expect(words, ["hel", "lo"])


@call("tools")
async def _tools(client, endpoint):
    answer = await ask(endpoint, messages=MESSAGES, tools=[WEATHER])
    expect(answer["choices"][0]["message"]["tool_calls"][0]["function"]["name"], "weather")


@call("usage")
async def _usage(client, endpoint):
    expect((await ask(endpoint, messages=MESSAGES))["usage"]["total_tokens"], 4)
    asked = payload_of(stream_options={"include_usage": True})
    answer = await endpoint.request(CHAT, asked, cost=100, stream=True)
    expect([one async for one in answer["response"]][-1]["usage"]["total_tokens"], 4)


@call("embeddings")
async def _embeddings(client, endpoint):
    expect((await ask(endpoint, "/v1/embeddings", input="x"))["data"][0]["embedding"], [0.5, 0.25])


@call("speech out")
async def _speech_out(client, endpoint):
    expect(len(await ask(endpoint, "/v1/audio/speech", voice="a", input="x")), SPEECH_BYTES)


@call("images")
async def _images(client, endpoint):
    expect((await ask(endpoint, "/v1/images/generations", prompt="x"))["data"][0]["b64_json"], "aGk=")


@call("errors")
async def _errors(client, endpoint):
    answer = await endpoint.request(CHAT, {"model": "gpt-none", "messages": MESSAGES}, cost=100)
    expect((answer["ok"], answer["status"]), (False, 404))
    assert "does not exist" in str(answer["response"]) + str(answer.get("text")), answer


@call("cancel")
async def _cancel(client, endpoint):
    answer = await endpoint.request(CHAT, payload_of(messages=slow("cancel")), cost=100, stream=True)
    await anext(aiter(answer["response"]))
    await answer["response"].aclose()


@call("timeout")
async def _timeout(client, endpoint):
    fault = None
    try:
        await client.queue_endpoint_request(
            endpoint, CHAT, payload_of(messages=slow("timeout"), stream=False), worker_timeout=1, timeout=3
        )
    except Exception as raised:  # noqa: BLE001 - the package raises plain exceptions
        fault = raised
    assert "timed out" in str(fault).lower(), fault


@call("50 at once")
async def _many(client, endpoint):
    answers = await asyncio.gather(*(ask(endpoint, messages=MESSAGES) for _ in range(50)))
    expect({answer["choices"][0]["message"]["content"] for answer in answers}, {"hello"})


async def main():
    async with Client(ACCOUNT_KEY, autoscaler_url=ENGINE, webserver_url=ENGINE) as client:
        await run_all(client, await client.get_endpoint(ENDPOINT))


asyncio.run(main())
