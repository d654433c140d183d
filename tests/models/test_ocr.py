"""Real OCR behind the preset `http`: a picture as a binary body and in a form."""

import subprocess

import pytest

from tests.models.conftest import ROOT, program
from tests.models.lifecycle import deploy

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]
DRAW = """
import cv2, numpy, sys
page = numpy.full((120, 640, 3), 255, numpy.uint8)
cv2.putText(page, "STOKER 2026", (20, 80), cv2.FONT_HERSHEY_SIMPLEX, 2, (0, 0, 0), 4)
sys.stdout.buffer.write(cv2.imencode(".png", page)[1].tobytes())
"""


@pytest.fixture(scope="module")
def picture():
    python = program("llama", "python")
    drawn = subprocess.run([python, "-c", DRAW], capture_output=True, check=False)
    if drawn.returncode:
        pytest.skip(f"{python} lacks rapidocr-onnxruntime: run make test-models")
    return drawn.stdout


async def test_a_picture_is_read_as_a_body_and_in_a_form(make_stack, picture):
    server = f"{program('llama', 'python')} {ROOT / 'tests/models/ocr_server.py'}"
    variables = {
        "STOKER_PRESET": "http",
        "MODEL_COMMAND": f"'{server}'",
        "MODEL_HEALTH_ENDPOINT": "/health",
        "MODEL_PERF": "100",
        "MODEL_ROUTES": """'[{"path": "/ocr", "rule": {"kind": "constant", "load": 50}, "parallel": false}]'""",
    }
    _, client = await make_stack(ocr=variables)
    endpoint = await deploy(client, "ocr", "ocr", max_workers=1)
    body = await endpoint.request("/ocr", content=picture, content_type="image/png", cost=50, timeout=300)
    form = await endpoint.request(
        "/ocr", files={"picture": ("page.png", picture, "image/png")}, cost=50, timeout=300
    )
    for answer in (body, form):
        assert "STOKER" in " ".join(answer.json()["text"]).upper(), answer.json()
