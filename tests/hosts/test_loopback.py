"""Instances of a marketplace on the loopback address listen only there."""

import os

from hosts.agent import proc
from run.processes.listening_sockets import listening_sockets
from tests.hosts.conftest import settings_for, until

WORKER = """
exec python -c '
from stoker_pyworker import BenchmarkConfig, HandlerConfig, Worker, WorkerConfig
benchmark = BenchmarkConfig(dataset=[{"prompt": "x"}])
Worker(WorkerConfig(model_server_url="http://127.0.0.1", model_server_port=9, handlers=[
    HandlerConfig(route="/x", benchmark_config=benchmark)])).run()
'
"""


async def test_a_pyworker_of_a_loopback_marketplace_listens_on_loopback(bench):
    instance_id = await bench.rent(onstart=WORKER, env={"UNSECURED": "true"})

    async def found():
        one = bench.host.instances[instance_id]
        return one.process and listening_sockets(one.process.living())

    sockets = await until(found, what="a listening worker")
    assert {one.host for one in sockets} == {"127.0.0.1"}


async def test_port_blocks_are_reserved_on_loopback(bench):
    instance_id = await bench.rent()
    await bench.reaches(instance_id, "running")
    found = listening_sockets([os.getpid()])
    assert found
    assert [one for one in found if not one.is_loopback] == []


def test_a_marketplace_for_others_leaves_the_address_to_the_instance(tmp_path):
    assert settings_for(tmp_path).listen_host == "127.0.0.1"
    assert settings_for(tmp_path, public_ip="::1").listen_host == "::1"
    assert settings_for(tmp_path, public_ip="203.0.113.7").listen_host is None
    assert proc.descendants(2**22 + 1) == []  # no such process
