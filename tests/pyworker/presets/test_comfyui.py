"""ComfyUI's preset: the workload of a workflow, and the answer of `/api/prompt` from a server like ComfyUI's."""

import asyncio
import base64
import json
import sys
import textwrap

import pytest

from stoker_pyworker.presets.__main__ import build
from stoker_pyworker.presets.comfyui import workload
from tests.pyworker.harness import until
from tests.pyworker.model.test_supervisor import port, quick  # noqa: F401 - fixtures

WORKFLOW = {
    "3": {"class_type": "KSampler", "inputs": {"steps": 20, "seed": 5, "model": ["4", 0]}},
    "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 512, "height": 1024, "batch_size": 2}},
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a ship", "clip": ["4", 1]}},
}


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        # 512 x 1024 x 2 pixels = 1.048576 MP, 20 steps
        ({"prompt": WORKFLOW}, 1.048576 * 20),
        ({"prompt": {}}, 1024 * 1024 / 1e6 * 20),
        (
            {"prompt": {"1": {"inputs": {"steps": "many", "width": True}}, "2": 5, "3": {"inputs": [1]}}},
            1.048576 * 20,
        ),
        ({}, 1.048576 * 20),
    ],
)
def test_the_workload_is_pixels_times_steps(payload, expected):
    assert workload(payload) == pytest.approx(expected)


COMFY = textwrap.dedent("""
    import http.server, json, sys, time
    polls, stopped = {}, []
    class Handler(http.server.BaseHTTPRequestHandler):
        def answer(self, body, status=200, kind="application/json"):
            body = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        def do_GET(self):
            path = self.path.partition("?")[0]
            if path == "/queue":
                self.answer({"stopped": stopped})
            elif path.startswith("/history/"):
                name = path.split("/")[2]
                polls[name] = polls.get(name, 0) + 1
                done = polls[name] > 1 and name != "slow"
                state = "error" if name == "bad" else "success"
                file = {"filename": "a b.png", "subfolder": "", "type": "output"}
                outputs = {"9": {"images": [file, {**file, "type": "temp"}]}}
                self.answer({name: {"status": {"status_str": state}, "outputs": outputs}} if done else {})
            elif path == "/view":
                self.answer(self.path.encode(), kind="image/png")
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}")
            if self.path == "/api/prompt":
                if not body.get("prompt"):
                    self.answer({"error": {"type": "prompt_no_outputs"}}, status=400)
                else:
                    self.answer({"prompt_id": body["client_id"], "number": 1, "node_errors": {}})
            else:
                stopped.append([self.path, body])
                self.answer(b"")
        def log_message(self, *_):
            pass
    server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[-1])), Handler)
    print("To see the GUI go to: http://127.0.0.1", flush=True)
    server.serve_forever()
""")


@pytest.fixture
async def comfy(make_worker, port, quick, tmp_path):  # noqa: F811
    script = tmp_path / "main.py"
    script.write_text(COMFY)
    config = build("comfyui", {"MODEL_PORT": str(port), "MODEL_COMMAND": f"{sys.executable} {script}"})
    return await make_worker(config)


async def test_a_call_waits_for_its_workflow_and_receives_the_images(comfy):
    answer = (await comfy.post("/api/prompt", {"prompt": WORKFLOW, "client_id": "good"}, cost=1000)).json()
    assert answer["status"] == {"status_str": "success"}
    (image,) = answer["images"]  # not the preview
    assert image["filename"] == "a b.png"
    assert base64.b64decode(image["data"]) == b"/view?filename=a+b.png&subfolder=&type=output"


async def test_a_failed_workflow_and_a_refused_one_are_errors(comfy):
    failed = await comfy.post("/api/prompt", {"prompt": WORKFLOW, "client_id": "bad"}, cost=1000)
    assert failed.status_code == 500
    assert failed.json()["status"] == {"status_str": "error"}
    refused = await comfy.post("/api/prompt", {"prompt": {}}, cost=1000)
    assert refused.status_code == 400
    assert refused.json()["error"]["type"] == "prompt_no_outputs"


async def test_the_workflow_of_a_client_that_has_gone_is_stopped(comfy):
    _, writer = await comfy.connect()
    writer.write(comfy.raw_request("/api/prompt", {"prompt": WORKFLOW, "client_id": "slow"}, cost=1000))
    await until(lambda: comfy.runtime.proxy.active)
    await asyncio.sleep(0.5)  # the workflow runs
    writer.close()

    async def stopped():
        reader, asking = await asyncio.open_connection("127.0.0.1", comfy.runtime.pool.port)
        asking.write(b"GET /queue HTTP/1.1\r\nHost: m\r\nConnection: close\r\n\r\n")
        body = (await reader.read()).partition(b"\r\n\r\n")[2]
        asking.close()
        return json.loads(body)["stopped"]

    for _ in range(200):
        seen = await stopped()
        if len(seen) == 2:
            break
        await asyncio.sleep(0.05)
    assert sorted(seen) == [["/interrupt", {}], ["/queue", {"delete": ["slow"]}]]
