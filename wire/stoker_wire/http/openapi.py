"""OpenAPI 3.1 documents of the servers, built from the declarations on their handlers.

A server decorates each handler with `handles`. Its application registers the declared calls, and `operations_of` reads
the same declarations for the document. Pure: no server framework is needed here.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter
from pydantic.json_schema import JsonSchemaMode

VERSION = "3.1.0"
ANY = 0
JSON = "application/json"
_PATH_NAME = re.compile(r"\{([^}]+)\}")
_REFERENCE = "#/components/schemas/{model}"

REFUSALS: Mapping[int, str] = {
    400: "The request is malformed or not allowed; the message names the field",
    401: "No valid key, token or ticket",
    403: "A valid key, token or ticket, but not for this resource",
    404: "No resource with this name or id",
    405: "This path does not take that method",
    408: "The body did not arrive in time",
    409: "Not possible in the current state of the resource",
    410: "The resource existed and has ended",
    413: "The body is larger than this call accepts",
    415: "A content type or content coding that this path does not support",
    417: "The Expect field is not 100-continue",
    422: "The body does not match the schema, or workers broke with this request",
    429: "Too many requests; Retry-After says when to retry",
    431: "The head of the request is larger than this server accepts",
    500: "A fault of this server; its log names it",
    502: "A server behind this one failed or refused",
    503: "Not available now; Retry-After says when to retry",
    505: "This server speaks HTTP/1.1",
    504: "A server behind this one did not answer in time",
}
"""The description of each refusal."""


class Said(BaseModel):
    """Base of reply bodies: exactly these fields."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, defer_build=True)


class ProblemBody(Said):
    """The body of every refusal (`stoker_wire.errors.problem`)."""

    success: Literal[False]
    error: str
    """A code for programs."""
    msg: str
    """What was expected, what was received, what to do."""
    error_msg: str
    """The same message; official clients read this field."""


class Done(Said):
    """The call succeeded."""

    success: Literal[True]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """A parameter outside of the body."""

    name: str
    about: str
    where: str = "query"
    """`query`, `path` or `header`."""
    type: Any = str
    required: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One kind of reply."""

    about: str = "Done"
    type: Any = None
    """A type that pydantic can describe; None: no JSON body."""
    content_type: str = JSON
    """Empty: no body."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """Parameters, body and replies of one method of one path."""

    replies: Mapping[int, Reply]
    """By status; `ANY`: the status of a server behind this one."""
    refuses: tuple[int, ...] = ()
    """Statuses with `problem` as body."""
    problem: Any = ProblemBody
    body: Any = None
    """A type that pydantic can describe; None: no JSON body."""
    body_required: bool = True
    body_content_type: str = JSON
    """If not JSON, with `body` None: a body of this type without a schema."""
    parameters: tuple[Parameter, ...] = ()
    security: tuple[str, ...] = ()
    """Names of security schemes, of which one is needed; empty: no authentication."""
    tag: str = ""
    summary: str = ""


@dataclass(slots=True)
class _Schemas:
    """Collects the types of a document and describes all of them at once."""

    wanted: dict[tuple[int, JsonSchemaMode], Any] = field(default_factory=dict)
    ready: dict[tuple[int, JsonSchemaMode], dict[str, Any]] = field(default_factory=dict)
    definitions: dict[str, Any] = field(default_factory=dict)

    def want(self, type_: Any, mode: JsonSchemaMode) -> None:
        if type_ is not None:
            self.wanted[id(type_), mode] = type_

    def describe(self) -> None:
        adapters = [(key, mode, TypeAdapter(type_)) for (key, mode), type_ in self.wanted.items()]
        made, about = TypeAdapter.json_schemas(adapters, by_alias=False, ref_template=_REFERENCE)
        self.ready = {(int(str(key)), mode): schema for (key, mode), schema in made.items()}
        self.definitions = about.get("$defs", {})

    def of(self, type_: Any, mode: JsonSchemaMode) -> dict[str, Any]:
        return self.ready[id(type_), mode]


Table = Mapping[tuple[str, str], Operation]
"""Operations by method (`GET`) and path (`/api/v0/instances/{id}/`)."""


_DECLARED = "__declared_calls__"
_PATTERN = re.compile(r"\{(\w+):(?:[^{}]|\{[^{}]*\})*\}")

Handler = TypeVar("Handler", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Declaration:
    """Calls of a handler that have the same operation."""

    calls: tuple[tuple[str, str], ...]
    """Method and path. Path parameters are in braces, with a pattern where the server's router needs one."""
    operation: Operation


def handles(*calls: str, **operation: Any) -> Callable[[Handler], Handler]:
    """Declare the calls of a handler, for example `@handles("GET /api/v0/things/{id}/", replies=…)`.

    Args:
        calls: method and path, separated by a space.
        operation: the fields of `Operation`.

    Raises:
        ValueError: a call is not a method and a path.
    """
    pairs = tuple((method, path) for method, _, path in (each.partition(" ") for each in calls))
    for method, path in pairs:
        if not method.isupper() or not path.startswith("/"):
            raise ValueError(
                f"a call must be a method and a path, such as 'GET /healthz', not {method} {path}"
            )
    declaration = Declaration(pairs, Operation(**operation))

    def declare(handler: Handler) -> Handler:
        setattr(handler, _DECLARED, (declaration, *declarations_of(handler)))
        return handler

    return declare


def declarations_of(handler: object) -> tuple[Declaration, ...]:
    """The declarations of a function or of a bound method."""
    declared: tuple[Declaration, ...] = getattr(handler, _DECLARED, ())
    return declared


def declared_calls(owner: object) -> Iterator[tuple[str, str, Callable[..., Any]]]:
    """Method, path and handler of every call that the methods of an object, or functions of a module, declare.

    They come in the order of definition.
    """
    names = vars(owner) if isinstance(owner, ModuleType) else vars(type(owner))
    for name in names:
        handler = getattr(owner, name)
        for declaration in declarations_of(handler):
            for method, path in declaration.calls:
                yield method, path, handler


def operations_of(routes: Iterable[tuple[str, str, object]]) -> Table:
    """The operations of a server's routes (method, path without patterns, handler).

    The first line of the handler's docstring is the summary.

    Raises:
        LookupError: a route that its handler does not declare.
    """
    table: dict[tuple[str, str], Operation] = {}
    for method, path, handler in routes:
        declared = {
            (each, _PATTERN.sub(r"{\1}", template)): declaration.operation
            for declaration in declarations_of(handler)
            for each, template in declaration.calls
        }
        if (method, path) not in declared:
            raise LookupError(
                f"the handler of {method} {path} does not declare it: decorate it with @handles"
            )
        summary = (handler.__doc__ or "").strip().partition("\n")[0]
        table[method, path] = replace(declared[method, path], summary=summary)
    return table


def document(
    title: str,
    version: str,
    about: str,
    operations: Table,
    *,
    security: Mapping[str, dict[str, str]],
    everywhere: tuple[int, ...] = (),
) -> dict[str, Any]:
    """The document, as JSON values. Path parameters without a declared `Parameter` are strings.

    `everywhere`: statuses with which any call may be refused before it reaches its handler.
    """
    schemas = _Schemas()
    for operation in operations.values():
        schemas.want(operation.body, "validation")
        schemas.want(operation.problem, "serialization")
        for parameter in operation.parameters:
            schemas.want(parameter.type, "validation")
        for reply in operation.replies.values():
            schemas.want(reply.type, "serialization")
    schemas.describe()
    paths: dict[str, dict[str, Any]] = {}
    for (method, path), operation in operations.items():
        refuses = tuple(sorted({*operation.refuses, *everywhere}))
        whole = replace(operation, refuses=refuses)
        paths.setdefault(path, {})[method.lower()] = _operation(method, path, whole, schemas)
    return {
        "openapi": VERSION,
        "info": {"title": title, "version": version, "description": about},
        "paths": paths,
        "components": {"schemas": schemas.definitions, "securitySchemes": dict(security)},
    }


def _operation(method: str, path: str, operation: Operation, schemas: _Schemas) -> dict[str, Any]:
    made: dict[str, Any] = {
        "operationId": re.sub(r"[^A-Za-z0-9]+", "_", f"{method.lower()}{path}").lstrip("_"),
        "summary": operation.summary,
        "responses": dict(_responses(operation, schemas)),
        "security": [{scheme: []} for scheme in operation.security],
    }
    if operation.tag:
        made["tags"] = [operation.tag]
    if parameters := list(_parameters(path, operation, schemas)):
        made["parameters"] = parameters
    if operation.body is not None:
        schema = schemas.of(operation.body, "validation")
        content = {operation.body_content_type: {"schema": schema}}
        made["requestBody"] = {"required": operation.body_required, "content": content}
    elif operation.body_content_type != JSON:
        content = {operation.body_content_type: {}}
        made["requestBody"] = {"required": operation.body_required, "content": content}
    return made


def _responses(operation: Operation, schemas: _Schemas) -> Iterable[tuple[str, dict[str, Any]]]:
    said: dict[int, dict[str, Any]] = {}
    problem = schemas.of(operation.problem, "serialization")
    for status, reply in operation.replies.items():
        said[status] = {"description": reply.about}
        if reply.content_type:
            schema = {} if reply.type is None else {"schema": schemas.of(reply.type, "serialization")}
            said[status]["content"] = {reply.content_type: schema}
    for status in operation.refuses:
        refusal: dict[str, Any] = {"description": REFUSALS[status], "content": {JSON: {"schema": problem}}}
        if status in said:  # the 503 of a health check has its own body
            one = said[status]["content"][JSON]["schema"]
            refusal["content"] = {JSON: {"schema": {"anyOf": [one, problem]}}}
        said[status] = refusal
    for status in sorted(said):
        yield str(status) if status else "default", said[status]


def _parameters(path: str, operation: Operation, schemas: _Schemas) -> Iterable[dict[str, Any]]:
    described = {parameter.name for parameter in operation.parameters if parameter.where == "path"}
    for name in _PATH_NAME.findall(path):
        if name not in described:
            yield {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
    for parameter in operation.parameters:
        yield {
            "name": parameter.name,
            "in": parameter.where,
            "required": parameter.required or parameter.where == "path",
            "description": parameter.about,
            "schema": schemas.of(parameter.type, "validation"),
        }
