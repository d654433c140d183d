"""The client of stoker, the open serverless GPU engine.

async with stoker.Serverless() as client:
    endpoint = await client.get_endpoint("llm")
    answer = await endpoint.request("/v1/completions", {"prompt": "…"}, cost=256)
"""

from stoker.client import Serverless
from stoker.endpoint import Endpoint
from stoker.errors import (
    CertificateNotTrusted,
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
from stoker.management.records import EndpointRecord, KeyRecord, Logs, WorkergroupRecord, WorkerRecord
from stoker.requests.answer import Answer
from stoker.requests.events import Event
from stoker.requests.job import Job
from stoker.requests.progress import RequestStatus, Wait
from stoker.requests.request import Request
from stoker.requests.retry.backoff import RetryPolicy
from stoker.requests.session import Session
from stoker.requests.stream import Stream
from stoker.requests.submission import Submission
from stoker.requests.timing import Timing
from stoker.sync import SyncServerless

__all__ = [
    "Answer",
    "CertificateNotTrusted",
    "Endpoint",
    "EndpointNotFound",
    "EndpointRecord",
    "EngineUnavailable",
    "Event",
    "Invalid",
    "Job",
    "KeyRecord",
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
