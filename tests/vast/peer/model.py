"""A model server for the compatibility tests: answers in every form, and remembers what it saw."""

import asyncio
import json
import os
import sys

from aiohttp import web

SEEN: dict[str, list] = {"closed": [], "cancelled": [], "failed": []}


async def health(request):
    return web.Response(text="well")


async def as_json(request):
    payload = await request.json()
    await asyncio.sleep(payload.get("seconds", 0))
    fails = payload.get("fail_with")
    if fails:
        SEEN["failed"].append(fails)
        # Once per word: the next attempt of the same request succeeds.
        if SEEN["failed"].count(fails) <= payload.get("times", 1):
            return web.json_response({"said": "no"}, status=int(fails.split()[0]))
    return web.json_response({"echo": payload, "by": os.environ.get("CONTAINER_ID")})


async def as_text(request):
    return web.Response(text="plain words")


async def as_binary(request):
    return web.Response(body=bytes(range(256)) * 4, content_type="application/octet-stream")


async def stream(request, kind, frame):
    payload = await request.json()
    answer = web.StreamResponse(headers={"Content-Type": kind})
    await answer.prepare(request)
    try:
        for number in range(payload.get("count", 5)):
            await answer.write(frame(json.dumps({"n": number})))
            await asyncio.sleep(payload.get("seconds", 0))
        if kind == "text/event-stream":
            await answer.write(b"data: [DONE]\n\n")
        await answer.write_eof()
    except (ConnectionError, asyncio.CancelledError):
        SEEN["cancelled"].append(payload.get("name", ""))
        raise
    return answer


async def events(request):
    return await stream(request, "text/event-stream", lambda text: f"data: {text}\n\n".encode())


async def lines(request):
    return await stream(request, "application/x-ndjson", lambda text: f"{text}\n".encode())


async def form(request):
    data = await request.post()
    file = data["file"]
    return web.json_response(
        {
            "file": [file.filename, file.content_type, file.file.read().hex()],
            "fields": [[name, value] for name, value in data.items() if isinstance(value, str)],
        }
    )


async def closed(request):
    SEEN["closed"].append(await request.json())
    return web.Response(text="ok")


async def seen(request):
    return web.json_response(SEEN)


async def say(request):
    print(await request.text(), flush=True)
    return web.Response(text="said")


async def main():
    app = web.Application()
    app.add_routes(
        [
            web.get("/health", health),
            web.get("/seen", seen),
            web.post("/say", say),
            web.post("/json", as_json),
            web.post("/queued", as_json),
            web.post("/parsed", as_json),
            web.post("/counted", as_json),
            web.post("/text", as_text),
            web.post("/binary", as_binary),
            web.post("/events", events),
            web.post("/lines", lines),
            web.post("/framed", lines),
            web.post("/form", form),
            web.post("/closed", closed),
        ]
    )
    # A client that leaves is noticed while the answer is written.
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", int(os.environ["MODEL_PORT"])).start()
    print("model ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
