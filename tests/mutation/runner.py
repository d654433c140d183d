"""Runs the mutants of one target in forks of one process that has collected the tests.

The first fork runs every test and notes the functions of the target that it calls. A mutant inside a function needs no
import: its fork exchanges the function's code and runs the tests that call it, the fastest first, until one fails. A
mutant of a constant, a default or a decorator imports the project again in its fork and runs all tests.
"""

import ast
import gc
import importlib.abc
import importlib.machinery
import importlib.util
import itertools
import json
import os
import resource
import select
import signal
import sys
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

import pytest
from cosmic_ray.work_item import MutationSpec, TestOutcome, WorkerOutcome, WorkItem, WorkResult
from hypothesis import Phase, settings

from tests.mutation.mutants import Target, changed_lines, judged, mutated, open_session, targets

MEMORY_MAX = 6 * 2**30
WALL_SECONDS = 300.0
SPARE_CPU_SECONDS = 3.0
OPTIONS = ["-q", "-s", "-x", "--timeout=120", "-W", "ignore::pytest.PytestAssertRewriteWarning"]
OPTIONS += ["-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:faulthandler"]
KILLER = "MUTATION_KILLER"
"""Names the environment variable with the test that failed."""
ROOTS = ("wire", "sdk", "pyworker")

Key = tuple[str, str, int]
"""File, qualified name and first line of a function that is not inside another one."""


@dataclass(frozen=True, slots=True)
class Function:
    """Where an outermost function stands: from its first decorator, and from its body on."""

    name: str
    first: int
    body: tuple[int, int]
    last: int


def functions_of(path: Path) -> list[Function]:
    """The functions of a file that are not inside another function."""
    found: list[Function] = []

    def visit(nodes: Iterable[ast.AST], prefix: str) -> None:
        for node in nodes:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                first = min([node.lineno, *(each.lineno for each in node.decorator_list)])
                start = node.body[0]
                body = (start.lineno, start.col_offset)
                found.append(Function(prefix + node.name, first, body, node.end_lineno or first))
            elif isinstance(node, ast.ClassDef):
                visit(node.body, f"{prefix}{node.name}.")
            else:
                visit(ast.iter_child_nodes(node), prefix)

    visit(ast.parse(path.read_text()).body, "")
    return found


class Reports:
    """Notes the test that fails."""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Called for setup, call and teardown of every test."""
        if report.failed:
            os.environ[KILLER] = report.nodeid


def killer() -> str | None:
    """The test that failed in this process."""
    return os.environ.get(KILLER)


class Selected:
    """Keeps the given tests, in the given order. For a fork that collects again."""

    def __init__(self, names: Sequence[str]) -> None:
        self._rank = {name: rank for rank, name in enumerate(names)}

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Called after conftest's."""
        items[:] = sorted(
            (item for item in items if item.nodeid in self._rank), key=lambda item: self._rank[item.nodeid]
        )
        make_deterministic(items)


def make_deterministic(items: Iterable[pytest.Item]) -> None:
    """Property tests try the same examples every time, and a failure is not shrunk."""
    for item in items:
        test = getattr(item, "obj", None)
        test = getattr(test, "__func__", test)
        own = getattr(test, "_hypothesis_internal_use_settings", None)
        if own is not None:
            phases = (Phase.explicit, Phase.generate)
            changed = settings(own, derandomize=True, database=None, phases=phases)
            test._hypothesis_internal_use_settings = changed  # type: ignore[union-attr]


class Mutated(importlib.abc.MetaPathFinder):
    """Imports one module from the given text."""

    def __init__(self, module: str, path: Path, text: str) -> None:
        self._module = module
        self._path = path
        self._text = text

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """The module's spec with a loader of the changed text."""
        if name != self._module:
            return None
        code = compile(self._text, str(self._path), "exec")

        class Loader(importlib.machinery.SourceFileLoader):
            def get_code(self, fullname: str) -> CodeType:
                return code

        return importlib.util.spec_from_file_location(name, self._path, loader=Loader(name, str(self._path)))


class Runner:
    """The pytest plugin that takes over once the tests are collected."""

    def __init__(self, target: Target, root: Path, folder: Path, *, seed: int, again: bool) -> None:
        self._target = target
        self._root = root
        self._again = again
        self._slow = folder / "slow.json"
        """CPU seconds of slow tests in earlier runs."""
        self._session = open_session(target, folder, root, seed=seed)
        self._functions = {str(root / name): functions_of(root / name) for name in target.files}
        self._at_import: set[Key] = set()
        self._seen = self._at_import
        self._cost: dict[str, float] = {}
        self._tests: dict[Key, set[str]] = defaultdict(set)
        self.failure = ""

    def trace(self, frame: Any, event: str, _argument: Any) -> None:
        """For `sys.settrace`: notes calls of the target's functions."""
        code = frame.f_code
        if event == "call" and code.co_filename in self._functions:
            function = self._at(code.co_filename, code.co_firstlineno)
            if function:
                self._seen.add((code.co_filename, function.name, function.first))

    def _at(self, file: str, line: int) -> Function | None:
        return next((each for each in self._functions[file] if each.first <= line <= each.last), None)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Run the target's mutants."""
        sys.settrace(None)
        slow = json.loads(self._slow.read_text()) if self._slow.exists() else {}
        without = set(self._target.without)
        chosen = [item for item in session.items if not without & set(getattr(item, "fixturenames", ()))]
        items = {item.nodeid: item for item in chosen}
        items = {name: item for name, item in items.items() if slow.get(name, 0.0) <= self._target.slowest}
        make_deterministic(items.values())
        found = fork(lambda: self._baseline(items), 3600.0)
        if not isinstance(found, dict) or not found["cost"]:
            self.failure = f"no test passes without a mutant: {found}"
            return True
        for name in found["failed"]:
            print(f"{self._target.name}: left out, because it fails without a mutant: {name}", flush=True)
        self._cost = {name: cost for name, cost in found["cost"].items() if cost <= self._target.slowest}
        slow |= {name: cost for name, cost in found["cost"].items() if cost > 0.2}
        self._slow.write_text(json.dumps(slow))
        for file, function, line, names in found["calls"]:
            self._tests[file, function, line] = self._cost.keys() & set(names)
        seconds = sum(self._cost.values())
        print(f"{self._target.name}: {len(self._cost)} tests, {seconds:.1f} s CPU", flush=True)
        self._objects = self._function_objects()
        for item in self._due():
            self._judge(item, items)
        return True

    def _baseline(self, items: dict[str, pytest.Item]) -> dict[str, Any]:
        """Cost of each test and the functions that it calls. Calls in a module's setup count for all its tests."""
        calls: dict[Key, set[str]] = defaultdict(set)
        failed: list[str] = []
        cost: dict[str, float] = {}
        shared: dict[str, set[Key]] = defaultdict(set)
        order = list(items.values())
        for item, following in itertools.pairwise([*order, None]):
            self._seen = set()
            started = time.process_time()
            sys.settrace(self.trace)
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            sys.settrace(None)
            if os.environ.pop(KILLER, None):
                failed.append(item.nodeid)
                continue
            cost[item.nodeid] = time.process_time() - started
            used: Iterable[str] = getattr(item, "fixturenames", ())
            if any(name in self._wide_fixtures(item) for name in used):
                shared[item.location[0]] |= self._seen
            for key in self._seen | shared[item.location[0]]:
                calls[key].add(item.nodeid)
        return {
            "failed": failed,
            "cost": cost,
            "calls": [[*key, sorted(names)] for key, names in calls.items()],
        }

    @staticmethod
    def _wide_fixtures(item: pytest.Item) -> set[str]:
        known: dict[str, Any] = getattr(getattr(item, "_fixtureinfo", None), "name2fixturedefs", {})
        return {
            name for name, defs in known.items() if defs[-1].scope != "function" and "event_loop" not in name
        }

    def _function_objects(self) -> dict[Key, list[FunctionType]]:
        found: dict[Key, list[FunctionType]] = defaultdict(list)
        for each in gc.get_objects():
            if isinstance(each, FunctionType) and each.__code__.co_filename in self._functions:
                code = each.__code__
                found[code.co_filename, code.co_qualname, code.co_firstlineno].append(each)
        return found

    def _due(self) -> list[WorkItem]:
        survivors = (
            {each.job_id for each in judged(self._session) if not each.killed} if self._again else set()
        )
        done = {job for job, _ in self._session.results} - survivors
        items = [item for item in self._session.work_items if item.job_id not in done]
        return sorted(
            items, key=lambda item: (str(item.mutations[0].module_path), item.mutations[0].start_pos)
        )

    def _judge(self, item: WorkItem, items: dict[str, pytest.Item]) -> None:
        mutation = item.mutations[0]
        text = mutated(self._root, mutation)
        if text is None:
            self._session.set_result(item.job_id, WorkResult(WorkerOutcome.SKIPPED, "not valid Python"))
            return
        file = str(self._root / mutation.module_path)
        function = self._at(file, mutation.start_pos[0])
        key = (
            (file, function.name, function.first)
            if function and mutation.start_pos >= function.body
            else None
        )
        code = new_code(compile(text, file, "exec"), key) if key else None
        inside = (
            key is not None and key not in self._at_import and code is not None and bool(self._objects[key])
        )
        names = self._tests[key] if key and inside else self._cost.keys()
        order = sorted(names, key=lambda name: self._cost[name])
        spent = itertools.accumulate(self._cost[name] for name in order)
        order = [name for name, total in zip(order, spent, strict=True) if total <= self._target.budget]
        limit = SPARE_CPU_SECONDS + 4 * sum(self._cost[name] for name in order)
        if inside and key and code:
            found = fork(lambda: run_inside(self._objects[key], code, [items[name] for name in order]), limit)
        else:
            found = fork(lambda: run_again(self._target, self._root, mutation, text, order), limit + 30)
        outcome = TestOutcome.SURVIVED if found == "" else TestOutcome.KILLED
        diff = changed_lines((self._root / mutation.module_path).read_text(), text)
        self._session.set_result(item.job_id, WorkResult(WorkerOutcome.NORMAL, str(found), outcome, diff))


def new_code(module: CodeType, key: Key) -> CodeType | None:
    """The code of the function in the compiled module."""
    for each in module.co_consts:
        if isinstance(each, CodeType):
            if (each.co_qualname, each.co_firstlineno) == key[1:]:
                return each
            found = new_code(each, key)
            if found is not None:
                return found
    return None


def run_inside(objects: list[FunctionType], code: CodeType, items: list[pytest.Item]) -> str:
    """Exchange the code and run the tests; the one that failed, or an empty text."""
    for each in objects:
        each.__code__ = code
    for item, following in itertools.pairwise([*items, None]):
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        if killer():
            return killer() or ""
    return ""


def run_again(target: Target, root: Path, mutation: MutationSpec, text: str, names: list[str]) -> str:
    """Import the project with the changed file and run the tests."""
    path = Path(mutation.module_path)
    parts = path.with_suffix("").parts
    module = ".".join(parts[1:] if parts[0] in ROOTS else parts)
    ours = {each.name for each in root.iterdir()} | {"stoker", "stoker_wire", "stoker_pyworker"}
    for name in list(sys.modules):
        if name.partition(".")[0] in ours and not name.startswith("tests.mutation"):
            del sys.modules[name]
    sys.meta_path.insert(0, Mutated(module, root / path, text))
    files = dict.fromkeys(name.partition("::")[0] for name in names)
    code = pytest.main([*OPTIONS, *files], plugins=[Reports(), Selected(names)])
    return "" if code == pytest.ExitCode.OK else killer() or f"pytest ended with {code}"


def fork(work: Callable[[], Any], cpu_seconds: float) -> Any:
    """The result of the work in a fork, or a text that says how the fork ended."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (int(cpu_seconds) + 1, int(cpu_seconds) + 2))
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_MAX, MEMORY_MAX))
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 1)
        os.dup2(null, 2)
        try:
            result = work()
        except BaseException:  # noqa: BLE001 - a mutant may raise anything; the parent reads it
            result = traceback.format_exc()[-2000:]
        with os.fdopen(write, "wb") as pipe:
            pipe.write(json.dumps(result).encode())
        os._exit(0)
    os.close(write)
    data = b""
    until = time.monotonic() + max(WALL_SECONDS, 10 * cpu_seconds)
    while True:
        ready, _, _ = select.select([read], [], [], max(0.0, until - time.monotonic()))
        part = os.read(read, 65536) if ready else b""
        data += part
        if not part:
            break
    os.close(read)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return json.loads(data) if data else "the time was used up"


def main() -> int:
    """Arguments: name, seed, sample (-1: the target's), again (0 or 1), folder of the sessions."""
    name, seed, sample, again, folder = sys.argv[1:]
    root = Path.cwd()
    target = targets(root)[name]
    if int(sample) >= 0:
        target = Target(
            **{each: getattr(target, each) for each in target.__slots__} | {"sample": int(sample)}
        )
    runner = Runner(target, root, Path(folder), seed=int(seed), again=again == "1")
    options = [*OPTIONS, *(["-k", target.select] if target.select else [])]
    sys.settrace(runner.trace)
    code = pytest.main([*options, *target.tests], plugins=[Reports(), runner])
    print(runner.failure, end="", flush=True)
    return 1 if runner.failure or code not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED) else 0


if __name__ == "__main__":
    sys.exit(main())
