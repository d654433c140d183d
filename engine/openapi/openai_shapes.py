"""Bodies of the OpenAI-compatible API and of jobs."""

from typing import Literal

from stoker_wire.http.openapi import Said


class Model(Said):
    """An endpoint in the format of an OpenAI model."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class OpenAIError(Said):
    """An error in OpenAI's format."""

    message: str
    type: str
    code: str
    param: None


class OpenAIProblem(Said):
    """A refusal under `/openai/…`."""

    error: OpenAIError


class OpenedJob(Said):
    """A job that has a worker. Its first call opens it there."""

    url: str
    """The base address of the job's calls at the engine."""
    worker_url: str
    """The base address of the same calls at the worker."""
    worker_id: int
    request_idx: int
    cost: float
    """Workload that the job may bring."""
    opens_within_seconds: float
    """The first call must come within this time."""


class Models(Said):
    """The models of this base URL."""

    object: Literal["list"]
    data: list[Model]
