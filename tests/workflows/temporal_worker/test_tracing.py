"""Temporal's own interceptor over the real workflow: activities as traces, with their workflow's id."""

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest
from temporalio.client import Client

from run.roles.tracing import interceptors_of, tracing_of
from stoker_wire.endpoint import EndpointConfig
from tests.otlp import collecting
from tests.workflows.world import World, group, make_market, make_workers
from workflows.temporal_worker.converter import data_converter


async def test_activities_are_traces_of_their_own_and_carry_no_secret(
    skipping: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with collecting() as collector, AsyncExitStack() as stack:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", f"{collector.url}/v1/traces")
        tracing = tracing_of("worker")
        assert tracing is not None
        client = await Client.connect(
            skipping.client.service_client.config.target_host,
            namespace=skipping.client.namespace,
            data_converter=data_converter,
            interceptors=interceptors_of(tracing),
        )
        world = World(skipping, client, None)  # type: ignore[arg-type]
        world.market = make_market(world.clock)
        for worker in make_workers(client, world.market):
            await stack.enter_async_context(worker)
        await world.start(EndpointConfig(min_load=0, min_workers=1, max_workers=2), [group()])
        assert await world.live(300, until=lambda memo: any(member.i for member in memo.members))
        histories = await world.histories()
        await stack.aclose()
        await asyncio.to_thread(tracing.close)
    names = {span.name for span in collector.spans}
    assert {"StartWorkflow:EndpointWorkflow", "RunActivity:plan", "RunActivity:create_instance"} <= names
    (start,) = collector.of("stoker-worker", "StartWorkflow:EndpointWorkflow")
    assert [span for span in collector.spans if span.trace_id == start.trace_id] == [start]
    for span in collector.of("stoker-worker", "RunActivity:create_instance"):
        assert span.attributes["temporalWorkflowID"] == start.attributes["temporalWorkflowID"]
    for secret in (b"hf_very_secret", b"an hmac secret"):
        assert secret not in collector.raw
    started = histories[0].events[0].workflow_execution_started_event_attributes
    assert "_tracer-data" not in started.header.fields
