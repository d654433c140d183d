"""Every server's OpenAPI document and routes name the same calls."""

from pathlib import Path
from typing import Any

import jsonschema
import pytest
from aiohttp import web
from pydantic import BaseModel

import hosts.api.openapi
from engine.app import create_parts
from engine.openapi.document import build_document
from hosts import HostMarketSettings
from hosts import create_app as create_market
from stoker_pyworker import HandlerConfig, WorkerConfig, openapi
from stoker_pyworker.environment import Environment
from stoker_pyworker.proxy.routes import PreparedRoute, RouteIndex
from stoker_pyworker.worker import WorkerRuntime
from stoker_wire.http1.limits import Limits
from tests.engine.conftest import settings
from tests.pyworker.harness import LAUNCH, TOKEN, handlers


def routes(app: web.Application) -> set[tuple[str, str]]:
    """The routes of the application."""
    return {
        (route.method, route.resource.canonical) for route in app.router.routes() if route.method != "HEAD"
    }


@pytest.fixture
def engine_app() -> web.Application:
    return create_parts(settings(), None).app


@pytest.fixture
def market_app(tmp_path: Path) -> web.Application:
    return create_market(HostMarketSettings(state_dir=tmp_path, api_keys=("a-key-of-tests",)), gpus=list)


@pytest.fixture
async def runtime(tmp_path: Path) -> WorkerRuntime:
    environment = Environment(
        container_id=1, worker_port=0, report_addresses=(), master_token=TOKEN, launch_id=LAUNCH
    )
    config = WorkerConfig(model_server_port=1, handlers=handlers())
    return WorkerRuntime(config, environment, Limits(), directory=tmp_path)


def test_the_engines_document_names_every_route_and_no_other(engine_app: web.Application) -> None:
    paths = build_document(engine_app)["paths"]
    assert {(method.upper(), path) for path in paths for method in paths[path]} == routes(engine_app)
    assert len(routes(engine_app)) > 40


def test_the_markets_document_names_every_route_and_no_other(market_app: web.Application) -> None:
    paths = hosts.api.openapi.build_document(market_app)["paths"]
    assert {(method.upper(), path) for path in paths for method in paths[path]} == routes(market_app)
    assert len(routes(market_app)) > 20


async def test_the_workers_document_names_every_route_and_no_other(runtime: WorkerRuntime) -> None:
    own = {(method, path) for method, path, _ in runtime.management.calls}
    paths = runtime.management.openapi_document()["paths"]
    named = {(method.upper(), path) for path, methods in paths.items() for method in methods}
    assert named == own | {("POST", route.pattern.text) for route in runtime.proxy.routes}


async def test_a_users_route_wins_over_the_workers_own_document(
    tmp_path: Path, runtime: WorkerRuntime
) -> None:
    config = HandlerConfig(route="/openapi.json")
    runtime.proxy.routes = RouteIndex([PreparedRoute(config, b"127.0.0.1:1")])
    assert list(runtime.management.openapi_document()["paths"]["/openapi.json"]) == ["post"]


def documents(
    engine_app: web.Application, market_app: web.Application, runtime: WorkerRuntime
) -> dict[str, Any]:
    return {
        "engine": build_document(engine_app),
        "market": hosts.api.openapi.build_document(market_app),
        "worker": runtime.management.openapi_document(),
    }


async def test_the_documents_are_whole(
    engine_app: web.Application, market_app: web.Application, runtime: WorkerRuntime
) -> None:
    for name, told in documents(engine_app, market_app, runtime).items():
        assert told["openapi"].startswith("3.1."), name
        ids = [operation["operationId"] for _, operation in operations(told)]
        assert len(set(ids)) == len(ids), name
        for schema in told["components"]["schemas"].values():
            jsonschema.Draft202012Validator.check_schema(schema)
        for where, operation in operations(told):
            assert operation["summary"] or name == "worker", f"{name}: {where} says nothing about itself"
            for scheme in operation["security"]:
                assert scheme.keys() <= told["components"]["securitySchemes"].keys(), where
            for reference in references(operation):
                assert reference.rpartition("/")[2] in told["components"]["schemas"], where
            assert any(status < "400" or status == "default" for status in operation["responses"]), where


def operations(told: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [
        (f"{method} {path}", operation)
        for path, methods in told["paths"].items()
        for method, operation in methods.items()
    ]


def references(value: Any) -> list[str]:
    if isinstance(value, dict):
        here = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return here + [found for inner in value.values() for found in references(inner)]
    return [found for inner in value for found in references(inner)] if isinstance(value, list) else []


def test_the_schemas_of_a_worker_are_built_only_for_the_document() -> None:
    """Building them takes time at the start of every worker."""
    models = [
        each for each in vars(openapi).values() if isinstance(each, type) and issubclass(each, BaseModel)
    ]
    assert all(each.model_config.get("defer_build") for each in models if each is not BaseModel)
