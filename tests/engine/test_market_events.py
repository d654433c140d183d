"""The marketplace's signed webhooks make the endpoints concerned look at once."""

import hashlib
import hmac
import json
import time
import uuid
from typing import Any

from stoker_wire.control import LOOK_NOW
from tests.engine.conftest import EndpointDouble, Stage

SECRET = b"a secret that the console showed once"


async def post(
    stage: Stage, fields: dict[str, Any] | bytes, *, secret: bytes = SECRET, age: float = 0.0
) -> int:
    body = fields if isinstance(fields, bytes) else json.dumps(fields).encode()
    at = str(int(time.time() - age))
    digest = hmac.new(secret, f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    headers = {
        "Content-Type": "application/json", "X-Vast-Timestamp": at, "X-Vast-Signature-256": f"sha256={digest}",
    }  # fmt: skip
    async with stage.http.post(f"{stage.server.url}/webhooks/vast/", data=body, headers=headers) as answer:
        return answer.status


def event(**fields: Any) -> dict[str, Any]:
    return {"event_id": uuid.uuid4().hex, "notif_type": "instance_offline"} | fields


async def looks(endpoint: EndpointDouble) -> int:
    history = await endpoint.handle.fetch_history()
    signals = [each.workflow_execution_signaled_event_attributes.signal_name for each in history.events]
    return signals.count(LOOK_NOW)


async def with_instance(stage: Stage, instance_id: int) -> EndpointDouble:
    endpoint = await stage.endpoint()
    worker = endpoint.worker(instance_id=instance_id)
    await endpoint.script(groups=[1], members=[worker.member()])
    return endpoint


async def test_an_event_wakes_the_endpoint_of_its_instance_and_one_without_wakes_all(
    bare_stage: Stage,
) -> None:
    stage = bare_stage
    await stage.start_engine(market_webhook_secret=SECRET)
    first, second = await with_instance(stage, 501), await with_instance(stage, 502)
    empty = await stage.endpoint()

    named = event(instance_id=501)
    assert await post(stage, named) == 204
    assert await post(stage, named) == 204  # delivered twice
    assert [await looks(each) for each in (first, second, empty)] == [1, 0, 0]
    assert await post(stage, event(notif_type="outbid")) == 204
    assert [await looks(each) for each in (first, second, empty)] == [2, 1, 0]
    assert await post(stage, event(instance_id=999)) == 204
    assert [await looks(each) for each in (first, second, empty)] == [2, 1, 0]


async def test_a_call_that_is_not_the_marketplace_s_wakes_nothing(bare_stage: Stage) -> None:
    stage = bare_stage
    await stage.start_engine(market_webhook_secret=SECRET)
    endpoint = await with_instance(stage, 503)
    assert await post(stage, event(), secret=b"another secret of another") == 401
    assert await post(stage, event(), age=400) == 401
    assert await post(stage, event(), age=-400) == 401
    assert await post(stage, b"[]") == 400
    assert await post(stage, event(message="x" * 70_000)) == 413
    async with stage.http.get(f"{stage.server.url}/webhooks/vast/") as answer:
        assert answer.status == 405
    assert await looks(endpoint) == 0


async def test_an_engine_without_the_secret_takes_no_webhook(stage: Stage) -> None:
    assert await post(stage, event()) == 404
