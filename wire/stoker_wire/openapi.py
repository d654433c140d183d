"""An OpenAPI 3.1 document out of a server's own table of operations and the types that it reads and answers with.

Pure: the servers bring their tables, `document` brings the form. Nothing here is needed to serve a request.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, TypeAdapter
from pydantic.json_schema import JsonSchemaMode

VERSION = "3.1.0"
ANY = 0
JSON = "application/json"
_PATH_NAME = re.compile(r"\{([^}]+)\}")
_REFERENCE = "#/components/schemas/{model}"

REFUSALS: Mapping[int, str] = {
    400: "What came cannot be read, or is not allowed; the sentence says which field",
    401: "No valid key, token or ticket",
    403: "A valid key, token or ticket, but not for this",
    404: "Nothing here by that name or number",
    405: "This path does not take that method",
    408: "The body did not arrive in time",
    409: "Not possible in the state that it is in",
    410: "It was here, and has ended",
    413: "The body is larger than this call takes",
    415: "A body of a content type or coding that this path does not take",
    417: "Expects something else than 100-continue",
    422: "The body is not of the shape that this call takes, or workers broke with this request",
    429: "Too much at once; Retry-After says when to come again",
    431: "The head of the request is larger than this server takes",
    500: "A fault of this server; its log names it",
    502: "What stands behind this server failed or refused",
    503: "Not now; Retry-After says when to come again",
    505: "This server speaks HTTP/1.1",
    504: "What stands behind this server did not answer in time",
}
"""What a refusal of that status means, wherever it is answered."""


class Said(BaseModel):
    """The base of what a server answers: exactly these fields."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class ProblemBody(Said):
    """Every refusal (`stoker_wire.problem`)."""

    success: Literal[False]
    error: str
    """What is wrong, as one word for programs."""
    msg: str
    """What was expected, what came, what to do: for people."""
    error_msg: str
    """The same again: official clients read it here."""


class Done(Said):
    """It is done."""

    success: Literal[True]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """A value outside of the body."""

    name: str
    about: str
    where: str = "query"
    """`query`, `path` or `header`."""
    type: Any = str
    required: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One kind of answer."""

    about: str = "Done"
    type: Any = None
    """What pydantic can describe; None: not JSON, or nothing."""
    content_type: str = JSON
    """Empty: no body."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """What one method of one path takes and answers."""

    replies: Mapping[int, Reply]
    """By status; `ANY` is whatever status somebody behind this server answered."""
    refuses: tuple[int, ...] = ()
    """Statuses whose body is `problem`."""
    problem: Any = ProblemBody
    body: Any = None
    """What pydantic can describe; None: no JSON body."""
    body_required: bool = True
    body_content_type: str = JSON
    """With `body` None and another type than JSON: a body of that type, not described."""
    parameters: tuple[Parameter, ...] = ()
    security: tuple[str, ...] = ()
    """Names of schemes, any of which opens it; none: open to everyone."""
    tag: str = ""
    summary: str = ""


@dataclass(slots=True)
class _Schemas:
    """Collects the types that a document names, and describes all of them at once."""

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


def told(table: Table, handlers: Iterable[tuple[str, str, str | None]]) -> Table:
    """The table in the order of a server's routes (method, path, docstring), with the docstrings' first lines.

    Raises:
        KeyError: a route that the table does not have.
    """
    return {
        (method, path): replace(table[method, path], summary=(about or "").strip().partition("\n")[0])
        for method, path, about in handlers
    }


def document(
    title: str,
    version: str,
    about: str,
    operations: Table,
    *,
    security: Mapping[str, dict[str, str]],
    everywhere: tuple[int, ...] = (),
) -> dict[str, Any]:
    """The document, as JSON values. Paths in braces that no parameter describes are text.

    `everywhere`: statuses with which any call may be refused, before anybody looks at what it is.
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
        if status in said:  # 503 of a health check has a body of its own
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
