"""Valid and invalid configurations and environments."""

import pytest

from stoker_pyworker import (
    BenchmarkConfig,
    ConfigError,
    HandlerConfig,
    JsonDataException,
    Worker,
    WorkerConfig,
)
from stoker_pyworker.environment import Environment
from stoker_pyworker.model.health import HealthState
from tests.pyworker.harness import TOKEN, handlers

GOOD = {
    "MASTER_TOKEN": TOKEN, "REPORT_ADDR": "http://a:1/, https://b", "CONTAINER_ID": "17", "WORKER_PORT": "3000",
    "VAST_TCP_PORT_3000": "41234", "PUBLIC_IPADDR": "203.0.113.7",
}  # fmt: skip


def benchmarked(**options):
    return HandlerConfig(**({"route": "/x", "benchmark_config": BenchmarkConfig(dataset=[{}])} | options))


def test_a_plain_config_is_accepted():
    Worker(WorkerConfig("http://127.0.0.1", 8000, handlers=[benchmarked()]))


def test_one_path_may_have_a_handler_for_each_method_and_one_for_websockets():
    more = [HandlerConfig(route="/x", methods=("GET",)), HandlerConfig(route="/x", websocket=True)]
    Worker(WorkerConfig("http://127.0.0.1", 8000, handlers=[benchmarked(), *more]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"handlers": []}, "at least one HandlerConfig"),
        ({"model_server_port": None}, "model_server_port"),
        ({"model_server_port": 70000}, "model_server_port"),
        ({"model_server_url": "127.0.0.1"}, "model_server_url"),
        ({"cost_tolerance": 0}, "cost_tolerance"),
        ({"handlers": [benchmarked(route="x")]}, "expected a path"),
        ({"handlers": [benchmarked(route="/session/x")]}, "the worker itself uses"),
        ({"handlers": [benchmarked(route="/a b")]}, "expected a path"),
        ({"handlers": [benchmarked(), HandlerConfig(route="/x")]}, "configured twice"),
        ({"handlers": [benchmarked(), benchmarked(route="/y")]}, "exactly one"),
        ({"handlers": [HandlerConfig(route="/x")]}, "exactly one"),
        ({"handlers": [benchmarked(benchmark_config=BenchmarkConfig())]}, "a dataset or a generator"),
        ({"handlers": [benchmarked(benchmark_config=BenchmarkConfig(dataset=[{}], runs=0))]}, "1 or more"),
        ({"handlers": [benchmarked(max_queue_time=0)]}, "max_queue_time"),
        ({"handlers": [benchmarked(handler_class=object)]}, "handler_class"),
        ({"handlers": [benchmarked(methods=("TRACE",))]}, "methods: expected some of GET, POST"),
        ({"handlers": [benchmarked(methods="POST")]}, "methods: expected some of GET, POST"),
        ({"handlers": [benchmarked(methods=("GET",))]}, "benchmark_config needs a route .* that takes POST"),
        ({"handlers": [benchmarked(route="/a/{x}")]}, "benchmark_config needs a route without variables"),
        ({"handlers": [benchmarked(), HandlerConfig(route="/a/{x:path}/b")]}, "at the end"),
        ({"handlers": [benchmarked(), HandlerConfig(route="/pyworker/{x}")]}, "the worker itself uses"),
        (
            {"handlers": [benchmarked(), HandlerConfig(route="/a/{x}"), HandlerConfig(route="/a/{y}")]},
            "configured twice",
        ),
        (
            {"handlers": [benchmarked(), HandlerConfig(route="/ws", websocket=True, methods=("GET",))]},
            "takes no methods",
        ),
        (
            {"handlers": [benchmarked(), HandlerConfig(route="/ws", websocket=True, request_parser=dict)]},
            "hooks need a JSON body",
        ),
        (
            {"handlers": [benchmarked(), HandlerConfig(route="/a", in_job=True)]},
            "in_job needs allow_parallel_requests",
        ),
        ({"job_calls_max": 0}, "job_calls_max"),
    ],
)
def test_an_invalid_config_names_what_was_expected(options, message):
    values = {"model_server_url": "http://127.0.0.1", "model_server_port": 8000, "handlers": [benchmarked()]}
    with pytest.raises(ConfigError, match=message):
        Worker(WorkerConfig(**(values | options)))


def test_the_environment_of_an_instance_is_parsed():
    settings = Environment.read(GOOD)
    assert settings.launch_id == "0123456789ab"
    assert settings.report_addresses == ("http://a:1", "https://b")
    assert settings.url(3000) == "http://203.0.113.7:41234"
    assert settings.session_port == 0
    assert Environment.read(GOOD | {"USE_SSL": "true"}).url(3000) == "https://203.0.113.7:41234"
    assert Environment.read(GOOD | {"USE_SSL": "true"}).session_port == 3001
    assert TOKEN not in repr(settings)


def test_all_errors_of_the_environment_are_listed_without_secrets():
    with pytest.raises(ConfigError) as fault:
        Environment.read({"MASTER_TOKEN": "hush-hush", "WORKER_PORT": "x"})
    for name in ("MASTER_TOKEN", "WORKER_PORT", "REPORT_ADDR", "CONTAINER_ID"):
        assert name in str(fault.value)
    assert "hush" not in str(fault.value)


@pytest.mark.parametrize("number", ["²", "9" * 5000])
def test_unusual_digits_are_not_accepted_as_a_number(number):
    with pytest.raises(ConfigError, match="CONTAINER_ID.*WORKER_PORT|WORKER_PORT.*CONTAINER_ID"):
        Environment.read(GOOD | {"CONTAINER_ID": number, "WORKER_PORT": number})


async def test_a_parser_that_refuses_is_a_422_with_its_message(make_worker):
    def parse(payload):
        raise JsonDataException({"prompt": "missing"})

    worker = await make_worker(handlers=handlers(request_parser=parse))
    answer = await worker.post("/echo", {})
    assert (answer.status_code, answer.json()["error"]) == (422, "payload_invalid")
    assert "prompt: missing" in answer.json()["msg"]


async def test_a_payload_class_of_the_official_package_works(make_worker, engine):
    class Payload:
        def __init__(self, tokens):
            self.tokens = tokens

        @classmethod
        def for_test(cls):
            return cls(3)

        @classmethod
        def from_json_msg(cls, message):
            if "tokens" not in message:
                raise JsonDataException({"tokens": "missing parameter"})
            return cls(message["tokens"])

        def generate_payload_json(self):
            return {"n_predict": self.tokens}

        def count_workload(self):
            return self.tokens

    worker = await make_worker(handlers=handlers(payload_class=Payload))
    assert (await worker.post("/echo", {"tokens": 9})).json() == {"n_predict": 9}
    assert (await worker.post("/echo", {})).status_code == 422


@pytest.mark.parametrize("payload", [b"[]", b'"x"', b"3", b"null", b"{1}"])
async def test_hooks_receive_only_json_objects(make_worker, payload):
    import json

    worker = await make_worker(handlers=handlers(workload_calculator=len))
    body = b'{"auth_data": %b, "payload": %b}' % (json.dumps(worker.auth()).encode(), payload)
    answer = await worker.client.post("/echo", content=body)
    assert answer.status_code == 422


def test_secrets_in_a_log_line_are_hidden_in_the_error():
    variables = {
        "WORKER_PORT": "3000",
        "MASTER_TOKEN": "7.0123456789ab.ffffffffffffffffffff",
        "REPORT_ADDR": "http://engine",
        "CONTAINER_ID": "5",
        "HF_TOKEN": "hf_canary_0123456789",
    }
    health = HealthState(secrets_to_hide=Environment.read(variables).secrets)
    health.failed("log", "401 for token hf_canary_0123456789 at the hub; 7.0123456789ab.ffffffffffffffffffff")
    assert health.error == "401 for token *** at the hub; ***"


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("203.0.113.7", "http://203.0.113.7:3000"),
        ("2001:db8::7", "http://[2001:db8::7]:3000"),
        ("[2001:db8::7]", "http://[2001:db8::7]:3000"),
        ("gpu.example.com", "http://gpu.example.com:3000"),
    ],
)
def test_the_address_of_a_worker_is_a_url_for_every_kind_of_host(host, url):
    environment = Environment.read(
        {
            "WORKER_PORT": "3000",
            "CONTAINER_ID": "1",
            "MASTER_TOKEN": "7.abc.0",
            "REPORT_ADDR": "http://e",
            "PUBLIC_IPADDR": host,
        }
    )
    assert environment.url(3000) == url
