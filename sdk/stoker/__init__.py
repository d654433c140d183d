"""The client of stoker, the open serverless GPU engine.

async with stoker.Serverless() as client:
    endpoint = await client.get_endpoint("llm")
    answer = await endpoint.request("/v1/completions", {"prompt": "…"}, cost=256)
"""

from stoker.answer import Answer
from stoker.backoff import RetryPolicy
from stoker.client import Serverless
from stoker.endpoint import Endpoint, Request
from stoker.errors import (
    EndpointNotFound,
    EngineUnavailable,
    Invalid,
    MalformedAnswer,
    ModelError,
    NotFound,
    Refused,
    RequestTimedOut,
    SessionClosed,
    StokerError,
    TemporalUnavailable,
    Unauthorised,
    WorkerFailed,
)
from stoker.events import Event
from stoker.progress import RequestStatus, Wait
from stoker.records import EndpointRecord, Logs, WorkergroupRecord, WorkerRecord
from stoker.session import Session
from stoker.stream import Stream
from stoker.submission import Submission
from stoker.sync import SyncServerless
from stoker.timing import Timing

__all__ = [
    "Answer",
    "Endpoint",
    "EndpointNotFound",
    "EndpointRecord",
    "EngineUnavailable",
    "Event",
    "Invalid",
    "Logs",
    "MalformedAnswer",
    "ModelError",
    "NotFound",
    "Refused",
    "Request",
    "RequestStatus",
    "RequestTimedOut",
    "RetryPolicy",
    "Serverless",
    "Session",
    "SessionClosed",
    "StokerError",
    "Stream",
    "Submission",
    "SyncServerless",
    "TemporalUnavailable",
    "Timing",
    "Unauthorised",
    "Wait",
    "WorkerFailed",
    "WorkerRecord",
    "WorkergroupRecord",
]
