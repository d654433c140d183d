"""One declaration serves a route in benchmark and in use: JSON, multipart forms and binary bodies."""

import pytest

from stoker_pyworker import BenchmarkConfig, Body, Form, HandlerConfig, JsonDataException, WorkerConfig
from stoker_pyworker.proxy import multipart

PIXELS = bytes(range(256))


class Picture:
    """A payload for a model that takes a form, from JSON, a form or the picture alone."""

    def __init__(self, content, note):
        self.content, self.note = content, note

    @classmethod
    def for_test(cls):
        return cls(PIXELS, "test")

    @classmethod
    def from_json_msg(cls, message):
        if isinstance(message, Body):
            return cls(message.content, "")
        if isinstance(message, Form):
            return cls(message["picture"][1], message.get("note", ""))
        if "picture" not in message:
            raise JsonDataException({"picture": "missing"})
        return cls(message["picture"].encode(), message.get("note", ""))

    def generate_payload_json(self):
        return {}

    def generate_payload_multipart(self):
        return {"picture": ("p.png", self.content, "image/png"), "note": self.note}

    def count_workload(self):
        return float(len(self.content))


class JsonOnly(Picture):
    """As a class of the official package: it reads JSON, and sends a form."""

    @classmethod
    def from_json_msg(cls, message):
        return cls(message["text"].encode(), "")


BENCHMARK = BenchmarkConfig(runs=1, concurrency=1, do_warmup=False)


def picture_form(note="hello"):
    return {"files": {"picture": ("x.png", PIXELS, "image/png")}, "data": {"note": note}}


async def send(worker, path="/echo", *, cost=1000.0, **request):
    headers = {"x-stoker-auth": worker.auth(cost=cost)["ticket"]} | request.pop("headers", {})
    return await worker.client.post(path, headers=headers, **request)


def form_of(seen):
    return multipart.decode(seen.body, seen.headers["content-type"].encode())


@pytest.fixture
async def pictures(make_worker):
    return await make_worker(
        WorkerConfig(
            handlers=[HandlerConfig(route="/echo", payload_class=Picture, benchmark_config=BENCHMARK)]
        )
    )


async def test_a_payload_class_is_measured_with_a_form(pictures, model):
    assert form_of(model.seen[-1]) == {"picture": ("p.png", PIXELS, "image/png"), "note": "test"}
    assert pictures.runtime.health.perf > 0


@pytest.mark.parametrize(
    ("request_", "content", "note"),
    [
        ({"json": {"auth_data": None, "payload": {"picture": "abc", "note": "n"}}}, b"abc", "n"),
        (picture_form(), PIXELS, "hello"),
        ({"content": PIXELS, "headers": {"content-type": "image/png"}}, PIXELS, ""),
    ],
    ids=["json", "form", "binary"],
)
async def test_a_payload_class_reads_each_form_of_a_request(pictures, model, request_, content, note):
    if "json" in request_:
        answer = await pictures.post("/echo", request_["json"]["payload"])
    else:
        answer = await send(pictures, **request_)
    assert answer.status_code == 200, answer.text
    assert form_of(model.seen[-1]) == {"picture": ("p.png", content, "image/png"), "note": note}


async def test_the_workload_of_a_form_is_counted_by_the_class(pictures):
    assert (await send(pictures, cost=255.0, **picture_form())).status_code == 403
    assert (await send(pictures, cost=256.0, **picture_form())).status_code == 200


async def test_a_class_that_reads_only_json_refuses_a_form_with_415(make_worker, model):
    worker = await make_worker(
        WorkerConfig(
            handlers=[HandlerConfig(route="/echo", payload_class=JsonOnly, benchmark_config=BENCHMARK)]
        )
    )
    sent = len(model.seen)
    answer = await send(worker, **picture_form())
    assert (answer.status_code, answer.json()["error"]) == (415, "payload_not_json")
    assert len(model.seen) == sent
    assert (await worker.post("/echo", {"text": "abc"})).status_code == 200


async def test_a_parser_changes_a_form(make_worker, model):
    def bounded(payload):
        return {**payload, "steps": min(int(payload["steps"]), 20)}

    config = BenchmarkConfig(dataset=[Form(steps=3, picture=("p", PIXELS, "image/png"))], runs=1, concurrency=1, do_warmup=False)  # fmt: skip
    worker = await make_worker(
        WorkerConfig(handlers=[HandlerConfig(route="/echo", request_parser=bounded, benchmark_config=config)])
    )
    files = {"picture": ("x.png", PIXELS, "image/png")}
    assert (await send(worker, files=files, data={"steps": "5000"})).status_code == 200
    assert form_of(model.seen[-1]) == {"picture": ("x.png", PIXELS, "image/png"), "steps": "20"}
    assert (await worker.post("/echo", {"steps": 5000})).json() == {"steps": 20}


async def test_a_calculator_counts_a_form_in_benchmark_and_use(make_worker):
    counted = []

    def size(payload):
        counted.append(type(payload))
        return len(payload["picture"][1]) if isinstance(payload, Form) else 1

    config = BenchmarkConfig(
        dataset=[Form(picture=("p", PIXELS, "image/png"))], runs=1, concurrency=1, do_warmup=False
    )
    worker = await make_worker(
        WorkerConfig(
            handlers=[HandlerConfig(route="/echo", workload_calculator=size, benchmark_config=config)]
        )
    )
    assert set(counted) == {Form}
    files = {"picture": ("x.png", PIXELS, "image/png")}
    assert (await send(worker, cost=255.0, files=files)).status_code == 403
    assert (await send(worker, cost=256.0, files=files)).status_code == 200


async def test_a_damaged_form_is_a_422_where_a_hook_would_read_it(pictures):
    answer = await send(
        pictures, content=b"--x\r\n", headers={"content-type": "multipart/form-data; boundary=x"}
    )
    assert (answer.status_code, answer.json()["error"]) == (422, "payload_invalid")
