"""Malformed bodies are answered with a 4xx problem and never reach a hook."""

import json

import pytest

from stoker_pyworker import HandlerConfig, logs
from stoker_pyworker.proxy.hooks import json_response
from stoker_pyworker.proxy.tickets import TicketVerifier
from stoker_wire.errors.problem import Problem
from stoker_wire.security.ticket import Ticket, TicketRefused, sign_ticket, verify_ticket
from tests.pyworker.harness import LAUNCH, handlers, until

KEY = b"k" * 32
VALUES = {
    "1,000 deep": "[" * 1000 + "]" * 1000,
    "500 deep": "[" * 500 + "]" * 500,
    "deep without an end": "[" * 100_000,
    "5,000 digits": "1" * 5000,
    "a huge exponent": "1e999",
    "NaN": "NaN",
    "half a character": '"\\ud800"',
    "not UTF-8": '"\xff"',
}


class Payload:
    """A payload class in the style of the official package."""

    def __init__(self, payload):
        self.payload = payload

    @classmethod
    def from_json_msg(cls, payload):
        return cls(payload)

    @classmethod
    def for_test(cls):
        return cls({})

    def generate_payload_json(self):
        return {"inner": self.payload}

    def count_workload(self):
        return 1.0


async def read_it(request, response):
    return json_response(await request.json())


async def remote(z=None):
    return 1


HOOKED = {
    "/echo": {"workload_calculator": lambda payload: 1.0},
    "/held": {"request_parser": lambda payload: {"parsed": payload}},
    "/empty": {"payload_class": Payload},
    "/teapot": {"response_generator": read_it},
    "/closed": {"remote_function": remote, "is_remote_dispatch": True},
}


def hooked():
    first, *_ = handlers()
    return [
        HandlerConfig(
            route=route,
            allow_parallel_requests=True,
            benchmark_config=first.benchmark_config if route == "/echo" else None,
            **options,
        )
        for route, options in HOOKED.items()
    ]


@pytest.mark.parametrize("case", VALUES)
async def test_no_payload_causes_a_worker_error(make_worker, model, case):
    worker = await make_worker(handlers=hooked())
    model.go.set()
    wrong = {}
    for route in HOOKED:
        before = len(model.seen)
        body = f'{{"auth_data": {json.dumps(worker.auth())}, "payload": {{"z": {VALUES[case]}}}}}'
        answer = await worker.client.post(route, content=body.encode("latin-1"))
        if answer.status_code != 422 or _reached(model, before, route):
            wrong[route] = (answer.status_code, answer.text[:200])
    assert wrong == {}
    await until(lambda: worker.runtime.counts.load == 0)


def _reached(model, before, route):
    return route != "/teapot" and any(seen.path == route for seen in model.seen[before:])


@pytest.mark.parametrize("case", VALUES)
@pytest.mark.parametrize("path", ["create", "get", "end", "health"])
async def test_no_body_of_a_session_call_causes_a_worker_error(worker, path, case):
    auth = json.dumps(worker.auth())
    for body in (
        f'{{"auth_data": {auth}, "payload": {{"on_close_route": "/closed", "on_close_payload": {VALUES[case]}}}}}',
        f'{{"auth_data": {{"z": {VALUES[case]}}}, "payload": {{}}}}',
        f'{{"session_id": "x", "session_auth": {VALUES[case]}}}',
    ):
        answer = await worker.client.post(f"/session/{path}", content=body.encode("latin-1"))
        assert answer.status_code in {400, 401, 422}, answer.text
    assert len(worker.runtime.sessions) == 0


async def test_a_large_integer_reaches_the_model_unchanged(make_worker):
    worker = await make_worker(handlers=hooked())
    assert (await worker.post("/echo", {"z": 10**30})).json() == {"z": 10**30}


async def test_the_model_receives_the_payload_whose_workload_was_calculated(make_worker, model):
    """A model server may read the first of duplicate keys, and compute 10,000 tokens at the cost of 1."""
    worker = await make_worker(
        handlers=[
            HandlerConfig(
                route="/echo",
                allow_parallel_requests=True,
                benchmark_config=handlers()[0].benchmark_config,
                workload_calculator=lambda payload: float(payload.get("tokens", 1)),
            )
        ]
    )
    auth = json.dumps(worker.auth(cost=10))
    body = f'{{"auth_data": {auth}, "payload": {{"tokens": 10000, "tokens": 1}}}}'
    answer = await worker.client.post("/echo", content=body)
    assert answer.content == b'{"tokens":1}'


SEALED = {
    "inf": '{"e":"llm","w":"0123456789ab","c":1.0,"r":1,"n":1,"x":Infinity}',
    "1e999": '{"e":"llm","w":"0123456789ab","c":1.0,"r":1,"n":1,"x":1e999}',
    "nan": '{"e":"llm","w":"0123456789ab","c":1.0,"r":1,"n":1,"x":NaN}',
    "an infinite cost": '{"e":"llm","w":"0123456789ab","c":Infinity,"r":1,"n":1,"x":2000}',
    "a negative cost": '{"e":"llm","w":"0123456789ab","c":-1,"r":1,"n":1,"x":2000}',
    "a text for a number": '{"e":"llm","w":"0123456789ab","c":"1","r":1,"n":1,"x":"2000"}',
    "a list for an index": '{"e":"llm","w":"0123456789ab","c":1,"r":[],"n":1,"x":2000}',
    "a fraction for an index": '{"e":"llm","w":"0123456789ab","c":1,"r":1.5,"n":1,"x":2000}',
    "true for an index": '{"e":"llm","w":"0123456789ab","c":1,"r":true,"n":1,"x":2000}',
    "no object": "[]",
    "deep": "[" * 5000 + "]" * 5000,
    "5,000 digits": '{"e":"llm","w":"0123456789ab","c":1.0,"r":1,"n":1,"x":' + "1" * 5000 + "}",
    "a missing field": '{"e":"llm","w":"0123456789ab","c":1.0,"r":1,"n":1}',
    "a field more": '{"e":"llm","w":"0123456789ab","c":1.0,"r":1,"n":1,"x":2000,"y":1}',
}


def sealed(text):
    """A correctly signed ticket with the given content."""
    import base64
    import hashlib
    import hmac

    body = base64.urlsafe_b64encode(text.encode()).rstrip(b"=")
    mac = base64.urlsafe_b64encode(hmac.digest(KEY, body, hashlib.sha256)).rstrip(b"=")
    return (body + b"." + mac).decode()


@pytest.mark.parametrize("case", SEALED)
def test_a_signed_ticket_with_invalid_values_is_refused_with_401(case):
    with pytest.raises(TicketRefused):
        verify_ticket(sealed(SEALED[case]), KEY, worker=LAUNCH, now=1000.0)
    with pytest.raises(Problem) as refused:
        TicketVerifier(KEY, LAUNCH).verify(sealed(SEALED[case]), 1000.0)
    assert (refused.value.status, refused.value.code) == (401, "ticket_unreadable")


def test_a_ticket_of_the_engine_is_accepted():
    ticket = Ticket(e="llm", w=LAUNCH, c=0.0, r=1, n=1, x=1060.0)
    assert verify_ticket(sign_ticket(ticket, KEY), KEY, worker=LAUNCH, now=1000.0) == ticket


def test_a_log_line_escapes_control_characters():
    line = logs._dump({"event": "x", "error": "\x1b[2J\x9b\u202e\ud83d", "other": object})
    assert line.isascii()
    assert json.loads(line)["error"] == "\x1b[2J\x9b\u202e\ud83d"
