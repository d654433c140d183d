"""Every exception of every package survives pickle, copy and deepcopy."""

import copy
import importlib
import inspect
import pickle
import pkgutil
import typing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from enum import Enum
from multiprocessing import get_context
from types import ModuleType

import pytest

import stoker
from stoker_wire.errors.picklable import PicklableError
from stoker_wire.errors.problem import Problem

ROOMS = (
    "stoker_wire", "stoker", "stoker_pyworker", "policy", "market", "activities", "workflows", "engine", "run", "simulation",
)  # fmt: skip


def modules() -> Iterator[ModuleType]:
    for room in ROOMS:
        top = importlib.import_module(room)
        yield top
        for found in pkgutil.walk_packages(top.__path__, f"{room}."):
            if not found.name.endswith("__main__"):
                yield importlib.import_module(found.name)


def exceptions() -> list[type[BaseException]]:
    """Every exception class of the packages, including nested ones."""
    found = {
        each
        for module in modules()
        for holder in [module, *(one for _, one in inspect.getmembers(module, inspect.isclass))]
        for _, each in inspect.getmembers(holder, inspect.isclass)
        if issubclass(each, BaseException)
        and each.__module__.split(".")[0] in ROOMS
        and each is not PicklableError
    }
    return sorted(found, key=lambda each: f"{each.__module__}.{each.__qualname__}")


def value_of(annotation: object) -> object:
    """A value that is not a default."""
    samples = {
        str: "said", int: 418, float: 1.5, bool: True, bytes: b"raw", dict: {"deep": [1, {"er": None}]}, list: [1],
        tuple: (1,), typing.Any: {"deep": [1, {"er": None}]},
    }  # fmt: skip
    if annotation in samples:
        return samples[annotation]
    if inspect.isclass(annotation) and issubclass(annotation, BaseException):
        return made(annotation)
    if inspect.isclass(annotation) and issubclass(annotation, Enum):
        return list(annotation)[-1]
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in samples:
        return samples[origin]
    return value_of(next(each for each in inner if each is not type(None)))


def made(kind: type[BaseException]) -> BaseException:
    """An exception with all arguments of its class."""
    if "__init__" not in {
        name for each in kind.__mro__ if each.__module__.split(".")[0] in ROOMS for name in vars(each)
    }:
        return kind("said")
    parameters = list(inspect.signature(kind.__init__).parameters.values())[1:]
    hints = typing.get_type_hints(kind.__init__)
    positional = [
        value_of(hints[each.name]) for each in parameters if each.kind is each.POSITIONAL_OR_KEYWORD
    ]
    named = {each.name: value_of(hints[each.name]) for each in parameters if each.kind is each.KEYWORD_ONLY}
    return kind(*positional, **named)


def contents(fault: BaseException) -> tuple[object, ...]:
    inner = {
        name: contents(value) if isinstance(value, BaseException) else value
        for name, value in vars(fault).items()
    }
    return type(fault), fault.args, str(fault), repr(fault), inner


def test_the_walk_finds_the_exceptions() -> None:
    names = {each.__name__ for each in exceptions()}
    assert len(names) > 30
    assert {
        "ModelError",
        "RequestTimedOut",
        "Refused",
        "WorkerFailed",
        "Problem",
        "TicketRefused",
        "UpstreamError",
        "CommandError",
    } <= names


@pytest.mark.parametrize("kind", exceptions(), ids=lambda kind: f"{kind.__module__}.{kind.__qualname__}")
def test_every_exception_survives_pickle_and_copies_with_all_its_attributes(
    kind: type[BaseException],
) -> None:
    fault = made(kind)
    fault.add_note("a note")
    ways = [copy.copy, copy.deepcopy]
    ways += [
        lambda each, p=protocol: pickle.loads(pickle.dumps(each, p))  # noqa: S301 - made here
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
    ]
    for way in ways:
        assert contents(way(fault)) == contents(fault)
    assert repr(fault)


def fail(kind: str) -> None:
    if kind == "timed_out":
        raise stoker.RequestTimedOut("no worker", reason="busy", waited_s=2.5)
    if kind == "model":
        raise stoker.ModelError("the model said no", status=422, body={"error": ["x"]}, worker_url="http://w")
    if kind == "refused":
        raise stoker.Refused("no", status=400, code="invalid_args")
    raise Problem(503, "busy", "come back", headers={"Retry-After": "1"})


def test_a_pool_of_processes_hands_the_exceptions_on_and_goes_on() -> None:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        with pytest.raises(stoker.RequestTimedOut) as timed_out:
            pool.submit(fail, "timed_out").result(60)
        assert (timed_out.value.reason, timed_out.value.waited_s) == ("busy", 2.5)
        with pytest.raises(stoker.ModelError) as model:
            pool.submit(fail, "model").result(60)
        assert (model.value.status, model.value.body, model.value.worker_url) == (
            422,
            {"error": ["x"]},
            "http://w",
        )
        with pytest.raises(stoker.Refused) as refused:
            pool.submit(fail, "refused").result(60)
        assert (refused.value.status, refused.value.code) == (400, "invalid_args")
        with pytest.raises(Problem) as problem:
            pool.submit(fail, "problem").result(60)
        assert problem.value.body()["error"] == "busy"
        assert pool.submit(max, 1, 2).result(60) == 2
