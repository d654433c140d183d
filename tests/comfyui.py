"""A server with ComfyUI's API: a prompt is queued, its progress comes by WebSocket, its images by `/view`."""

import asyncio
import json
import struct
import uuid
from urllib.parse import urlsplit

from aiohttp import WSCloseCode, WSMsgType, web

from stoker_pyworker import BenchmarkConfig, HandlerConfig
from stoker_wire.workload import ConstantWorkload

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 64
_PREVIEW = 1
"""ComfyUI's type of a binary event with a preview image."""


class ComfyUI:
    """Runs one prompt at a time. With `hold` set, a prompt waits for `go` before its last node."""

    def __init__(self):
        self.sockets = {}
        self.history = {}
        self.queue = asyncio.Queue()
        self.hold = False
        self.go = asyncio.Event()
        self.seen = []
        """Method and raw target of each request."""
        self.headers = []
        self.uploads = {}
        self.close_codes = []
        """As the clients sent them."""
        self.cut = 0
        """WebSockets that ended without a close frame."""

    async def start(self):
        app = web.Application(middlewares=[self._look], client_max_size=2**30)
        app.add_routes(
            [
                web.post("/prompt", self.prompt),
                web.get("/prompt", self.queue_state),
                web.get("/queue", self.queue_state),
                web.get("/history/{id}", self.one_history),
                web.get("/view", self.view),
                web.post("/upload/image", self.upload),
                web.get("/ws", self.ws),
                web.get("/echo", self.echo),
                web.get("/refuses", self.refuses),
                web.get("/drops", self.drops),
                web.options("/prompt", self.options),
                web.get("/admin", self.admin),
                web.get("/files/{path:.+}", self.file),
            ]
        )
        self.runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await self.runner.setup()
        site = web.TCPSite(self.runner, "127.0.0.1", 0)
        await site.start()
        self.port = self.runner.addresses[0][1]
        self.working = asyncio.create_task(self._work())
        return self

    async def stop(self):
        self.working.cancel()
        await asyncio.gather(self.working, return_exceptions=True)
        await self.runner.cleanup()

    @web.middleware
    async def _look(self, request, handler):
        self.seen.append((request.method, request.raw_path))
        self.headers.append(request.headers.copy())
        origin = request.headers.get("Origin")
        if origin and urlsplit(origin).netloc != request.headers.get("Host"):  # as ComfyUI does
            raise web.HTTPForbidden
        return await handler(request)

    async def prompt(self, request):
        body = await request.json()
        if not isinstance(body.get("prompt"), dict):
            return web.json_response({"error": {"type": "no_prompt"}, "node_errors": {}}, status=400)
        if "crash" in body["prompt"]:
            request.transport.abort()
        prompt_id = str(uuid.uuid4())
        await self.queue.put((prompt_id, body))
        return web.json_response(
            {"prompt_id": prompt_id, "number": self.queue.qsize(), "node_errors": {}},
            headers={"X-Model": "yes"},
        )

    async def queue_state(self, _):
        return web.json_response({"queue_running": [], "queue_pending": []})

    async def one_history(self, request):
        prompt_id = request.match_info["id"]
        return web.json_response({prompt_id: self.history[prompt_id]} if prompt_id in self.history else {})

    async def view(self, request):
        if not request.query.get("filename", "").endswith(".png"):
            raise web.HTTPNotFound
        return web.Response(body=PNG, content_type="image/png")

    async def upload(self, request):
        form = await request.post()
        image = form["image"]
        self.uploads[image.filename] = image.file.read()
        return web.json_response({"name": image.filename, "subfolder": "", "type": "input"})

    async def options(self, _):
        return web.Response(status=204, headers={"Allow": "GET,POST"})

    async def admin(self, _):
        return web.json_response({"secret": True})

    async def file(self, request):
        return web.Response(text=request.raw_path)

    async def ws(self, request):
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        client_id = request.query.get("clientId") or uuid.uuid4().hex
        self.sockets[client_id] = socket
        status = {"exec_info": {"queue_remaining": self.queue.qsize()}}
        await socket.send_json({"type": "status", "data": {"status": status, "sid": client_id}})
        try:
            async for _ in socket:
                pass
        finally:
            self._ended(socket)
            self.sockets.pop(client_id, None)
        return socket

    def _ended(self, socket):
        code = socket.close_code
        self.cut += code in (None, WSCloseCode.ABNORMAL_CLOSURE)
        self.close_codes.append(code)

    async def echo(self, request):
        """Not ComfyUI's: returns every message; `close <code>` closes; `flood <n>` sends n mebibytes."""
        socket = web.WebSocketResponse(protocols=("chat",), max_msg_size=0, autoping=False)
        await socket.prepare(request)
        try:
            async for message in socket:
                await self._echo(socket, message)
        finally:
            self._ended(socket)
        return socket

    async def _echo(self, socket, message):
        if message.type is WSMsgType.PING:
            await socket.pong(message.data)
        elif message.type is WSMsgType.BINARY:
            await socket.send_bytes(message.data)
        elif message.data.startswith("close "):
            await socket.close(code=int(message.data.split()[1]), message=b"as asked")
        elif message.data.startswith("flood "):
            for _ in range(int(message.data.split()[1])):
                await socket.send_bytes(bytes(2**20))
        else:
            await socket.send_str(message.data)

    async def refuses(self, _):
        return web.json_response({"detail": "no more sockets"}, status=403, headers={"X-Why": "full"})

    async def drops(self, request):
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        request.transport.abort()
        return socket

    async def _work(self):
        while True:
            prompt_id, body = await self.queue.get()
            client_id = body.get("client_id")

            async def tell(kind, client_id=client_id, prompt_id=prompt_id, **data):
                if client_id in self.sockets:
                    event = {"type": kind, "data": {**data, "prompt_id": prompt_id}}
                    await self.sockets[client_id].send_json(event)

            await tell("execution_start")
            for node in body["prompt"]:
                await tell("executing", node=node)
                for step in range(1, 4):
                    await tell("progress", value=step, max=3, node=node)
                if client_id in self.sockets:
                    await self.sockets[client_id].send_bytes(struct.pack(">II", _PREVIEW, 2) + PNG)
            if self.hold:
                await self.go.wait()
            name = f"ComfyUI_{prompt_id[:5]}_.png"
            outputs = {"9": {"images": [{"filename": name, "subfolder": "", "type": "output"}]}}
            self.history[prompt_id] = {
                "prompt": [1, prompt_id, body["prompt"], {}, ["9"]],
                "outputs": outputs,
                "status": {"status_str": "success", "completed": True, "messages": []},
            }
            await tell("executing", node=None)


async def make_image(session, base, prompt=None, **options):
    """The calls of ComfyUI's `websockets_api_example.py`. Returns the images of one prompt, and the events."""
    client_id = uuid.uuid4().hex
    events = []
    async with session.ws_connect(f"{base}/ws?clientId={client_id}", max_msg_size=0, **options) as socket:
        request = {"prompt": prompt or {"3": {"class_type": "KSampler"}}, "client_id": client_id}
        async with session.post(f"{base}/prompt", json=request, **options) as answered:
            assert answered.status == 200, await answered.text()
            prompt_id = (await answered.json())["prompt_id"]
        async for message in socket:
            if message.type is not WSMsgType.TEXT:
                events.append(message.data)
                continue
            event = json.loads(message.data)
            events.append(event)
            data = event["data"]
            if event["type"] == "executing" and data["node"] is None and data["prompt_id"] == prompt_id:
                break
    async with session.get(f"{base}/history/{prompt_id}", **options) as answered:
        outputs = (await answered.json())[prompt_id]["outputs"]
    images = []
    for image in (image for node in outputs.values() for image in node["images"]):
        async with session.get(f"{base}/view", params=image, **options) as answered:
            assert answered.content_type == "image/png"
            images.append(await answered.read())
    return images, events


def part(route, *, in_job=True, **options):
    return HandlerConfig(route=route, allow_parallel_requests=True, in_job=in_job, **options)


def comfyui_handlers():
    benchmark = BenchmarkConfig(dataset=[{"prompt": {}}], runs=1, concurrency=1)
    return [
        part("/prompt", workload_calculator=ConstantWorkload(load=100), benchmark_config=benchmark),
        part("/prompt", methods=("GET", "OPTIONS")),
        part("/history/{id}", methods=("GET",)),
        part("/view", methods=("GET",)),
        part("/upload/image", workload_calculator=ConstantWorkload(load=0)),
        part("/files/{path:path}", methods=("GET",)),
        *(part(path, websocket=True) for path in ("/ws", "/echo", "/refuses", "/drops")),
        part("/queue", in_job=False, methods=("GET",)),
    ]
