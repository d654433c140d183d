"""The mutants of a target: cosmic-ray's work items in a session file, without those that no test could notice."""

import ast
import difflib
import functools
import hashlib
import json
import tomllib
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cosmic_ray import plugins
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.work_db import WorkDB
from cosmic_ray.work_item import MutationSpec, TestOutcome, WorkerOutcome, WorkItem, WorkResult

HERE = Path(__file__).parent
ORDERS = ("Lt", "LtE", "Gt", "GtE")
IDENTITY = {
    *("Is_Eq", "IsNot_NotEq"),
    *(f"{one}_{other}" for one in ("Eq", "NotEq", *ORDERS) for other in ("Is", "IsNot")),
    *(f"{one}_{order}" for one in ("Is", "IsNot") for order in ORDERS),
}
"""Mutations between identity and the comparison of values or an order. `is` does the same as `==` there, or depends on the
interpreter's caches. An order raises an error for None, and follows the alphabet for members of an enum."""
SMALL_CHANGE = 0.02
"""Numbers change by one. If that is a smaller share of the number, the mutant is not run."""
LOGGERS = {"log", "logger", "_log"}
FORM = {"frozen", "slots", "kw_only", "repr"}
"""Options of a dataclass that change how it may be written, not what it computes."""
SKIPPED_AS = {
    "annotation": "signatures without their default values, and other annotations",
    "log": "arguments of log calls",
    "repr": "`__repr__`",
    "form": "`frozen`, `slots`, `kw_only` and `repr` of dataclasses",
    "identity": "identity into a comparison of values or an order, and the reverse",
    "number": "a number changed by less than 2 %",
}
NOT_SAMPLED = "not sampled"
Location = tuple[int, int]
"""Line and column."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """An entry of `targets.toml`: files to change, and the tests that have to notice."""

    name: str
    files: list[str]
    tests: list[str]
    title: str
    """The file or folder, for the table."""
    select: str = ""
    """Pytest's -k."""
    without: list[str] = field(default_factory=list)
    """Tests that use one of these fixtures do not run."""
    sample: int = 0
    """Number of mutants drawn at random; 0: all of them."""
    slowest: float = 1.0
    """CPU seconds; tests that take longer do not run."""
    budget: float = 5.0
    """CPU seconds of the tests that run for one mutant, the fastest first."""


@dataclass(frozen=True, slots=True)
class Equivalent:
    """A line whose mutants (all of them, or those listed) behave like the original, and why."""

    file: str
    line: str
    reason: str
    becomes: tuple[str, ...] = ()

    def covers(self, file: str, before: str, after: str) -> bool:
        """Whether this entry names the mutant."""
        return (
            file == self.file
            and " ".join(before.split()) == self.line
            and (not self.becomes or " ".join(after.split()) in self.becomes)
        )


def targets(root: Path) -> dict[str, Target]:
    """The targets of `targets.toml`; a folder among the files stands for its modules."""
    read = tomllib.loads((HERE / "targets.toml").read_text())
    return {
        name: Target(
            name=name, title=" ".join(entry["files"]), **entry | {"files": [*_modules(root, entry["files"])]}
        )
        for name, entry in read.items()
    }


def _modules(root: Path, names: list[str]) -> Iterator[str]:
    for name in names:
        path = root / name
        found = sorted(path.glob("*.py")) if path.is_dir() else [path]
        yield from (str(each.relative_to(root)) for each in found if each.name != "__init__.py")


def equivalents() -> list[Equivalent]:
    """The survivors that were judged equivalent."""
    read = tomllib.loads((HERE / "equivalents.toml").read_text())
    return [
        Equivalent(**(entry | {"becomes": tuple(entry.get("becomes", ()))}))
        for entry in read.get("equivalent", [])
    ]


def open_session(target: Target, folder: Path, root: Path, *, seed: int) -> WorkDB:
    """The target's session file; a new one if the sample or the seed changed. Changed files are judged again."""
    path, note = folder / f"{target.name}.sqlite", folder / f"{target.name}.json"
    state: dict[str, Any] = {
        "sources": {name: hashlib.sha256((root / name).read_bytes()).hexdigest() for name in target.files},
        "sample": target.sample,
        "seed": seed,
    }
    earlier: dict[tuple[str, str, int], WorkResult] = {}
    if path.exists() and note.exists():
        before = json.loads(note.read_text())
        session = WorkDB(path, WorkDB.Mode.open)
        if before == state:
            return session
        if (before["sample"], before["seed"]) == (target.sample, seed):
            same = {
                name for name, digest in state["sources"].items() if before["sources"].get(name) == digest
            }
            earlier = {
                _location(item.mutations[0]): result
                for item, result in session.completed_work_items
                if result.test_outcome is not None and str(item.mutations[0].module_path) in same
            }
        session.close()
    path.unlink(missing_ok=True)
    session = WorkDB(path, WorkDB.Mode.create)
    items = [item for name in target.files for item in _items(root, name)]
    session.add_work_items(items)
    kept = []
    for item in items:
        reason = _reason_to_skip(root, item.mutations[0])
        if reason:
            session.set_result(item.job_id, WorkResult(WorkerOutcome.SKIPPED, reason))
        else:
            kept.append(item)
    if target.sample:
        kept.sort(key=lambda item: _draw(seed, item.mutations[0]))
        left = [item.job_id for item in kept[target.sample :]]
        session.set_multiple_results(left, WorkResult(WorkerOutcome.SKIPPED, NOT_SAMPLED))
        kept = kept[: target.sample]
    for item in kept:
        if result := earlier.get(_location(item.mutations[0])):
            session.set_result(item.job_id, result)
    note.write_text(json.dumps(state))
    return session


def _items(root: Path, name: str) -> Iterator[WorkItem]:
    tree = get_ast((root / name).read_text())
    for operator_name in sorted(plugins.operator_names()):
        operator = plugins.get_operator(operator_name)
        if operator.arguments():
            continue
        places = (place for node in ast_nodes(tree) for place in operator().mutation_positions(node))
        for occurrence, (start, end) in enumerate(places):
            mutation = MutationSpec(name, operator_name, occurrence, start, end)
            yield WorkItem.single(uuid.uuid4().hex, mutation)


def _location(mutation: MutationSpec) -> tuple[str, str, int]:
    return str(mutation.module_path), mutation.operator_name, mutation.occurrence


def _draw(seed: int, mutation: MutationSpec) -> bytes:
    """A random number that depends on nothing but the seed and the mutation."""
    text = f"{seed} {mutation.module_path} {mutation.operator_name} {mutation.occurrence}"
    return hashlib.sha256(text.encode()).digest()


def _reason_to_skip(root: Path, mutation: MutationSpec) -> str | None:
    if _is_identity(mutation):
        return "identity"
    line, column = mutation.start_pos
    if mutation.operator_name == "core/NumberReplacer" and _is_large(root, mutation):
        return "number"
    for first, last, reason in _ignored(root / mutation.module_path):
        if first <= (line, column) < last:
            return reason
    return None


def _is_identity(mutation: MutationSpec) -> bool:
    return mutation.operator_name.rpartition("Operator_")[2] in IDENTITY


def _is_large(root: Path, mutation: MutationSpec) -> bool:
    (line, first), (_, last) = mutation.start_pos, mutation.end_pos
    text = (root / mutation.module_path).read_text().splitlines()[line - 1][first:last]
    return 1 / max(abs(ast.literal_eval(text)), 1) < SMALL_CHANGE


@functools.cache
def _ignored(path: Path) -> list[tuple[Location, Location, str]]:
    """Start, end and reason of the stretches of source that are not mutated."""
    found: list[tuple[ast.AST, str]] = []
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.AnnAssign):
            found.append((node.annotation, "annotation"))
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found += [(node, "repr")] if node.name == "__repr__" else []
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            found.append((node, "annotation"))
        elif isinstance(node, ast.ClassDef):
            found += [(word.value, "form") for word in node.keywords if word.arg in FORM]
        elif isinstance(node, ast.Call):
            parts = ast.unparse(node.func).split(".")
            if len(parts) > 1 and parts[-2] in LOGGERS:
                found.append((node, "log"))
            found += [(word.value, "form") for word in node.keywords if word.arg in FORM]
    places = [(*_span(node), reason) for node, reason in found]
    return places + [gap for node in ast.walk(tree) for gap in _signature(node)]


def _signature(node: ast.AST) -> Iterator[tuple[Location, Location, str]]:
    """The parts of a function's first lines between its default values: names, annotations, `*` and `/`."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        start: Location = (node.lineno, node.col_offset)
        for default in sorted(filter(None, [*node.args.defaults, *node.args.kw_defaults]), key=_span):
            first, last = _span(default)
            yield start, first, "annotation"
            start = last
        yield start, _span(node.body[0])[0], "annotation"


def _span(node: Any) -> tuple[Location, Location]:
    return (node.lineno, node.col_offset), (node.end_lineno, node.end_col_offset)


def mutated(root: Path, mutation: MutationSpec) -> str | None:
    """The file's text after the mutation; None if it is not valid Python."""
    source = (root / mutation.module_path).read_text()
    operator = plugins.get_operator(mutation.operator_name)()
    try:
        text = mutate_code(source, operator, mutation.occurrence)
        compile(text or "", str(mutation.module_path), "exec")
    except (
        SyntaxError,
        AttributeError,
    ):  # AttributeError: cosmic-ray replaces no exception with a dotted name
        return None
    return str(text) if text else None


def changed_lines(before: str, after: str) -> str:
    """The removed and added lines, as stored in the session."""
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), n=0, lineterm="")
    return "\n".join(line for line in lines if not line.startswith(("---", "+++", "@@")))


@dataclass(frozen=True, slots=True)
class Judged:
    """One mutant that was run."""

    job_id: str
    mutation: MutationSpec
    killed: bool
    before: str
    after: str

    def __str__(self) -> str:
        place = f"{self.mutation.module_path}:{self.mutation.start_pos[0]}"
        return f"{place} {self.before!r} -> {self.after!r}"


def judged(session: WorkDB) -> list[Judged]:
    """The mutants that were run, in the order of the source."""
    found = [
        _judged(item, result)
        for item, result in session.completed_work_items
        if result.test_outcome is not None and not _is_identity(item.mutations[0])
    ]
    return sorted(
        found, key=lambda each: (str(each.mutation.module_path), each.mutation.start_pos, each.after)
    )


def _judged(item: WorkItem, result: WorkResult) -> Judged:
    lines = (result.diff or "").splitlines()
    before, after = (
        " ".join(line[1:].strip() for line in lines if line.startswith(sign)) for sign in ("-", "+")
    )
    killed = result.test_outcome == TestOutcome.KILLED
    return Judged(item.job_id, item.mutations[0], killed, before, after)
