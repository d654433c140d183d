"""Alerts: what engines and Temporal workers report to the notifier's workflow, and the notices that it sends.

The names are those of the rules in `deploy/monitoring/alerts.yaml`.
"""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from stoker_wire.base import TolerantModel
from stoker_wire.parsing.escaping import escape_line
from stoker_wire.parsing.limits import excerpt

NOTIFIER_ID = "stoker-notifier"
NOTIFIER_WORKFLOW_TYPE = "NotifierWorkflow"
NOTIFIER_TASK_QUEUE = "stoker-notifier"
"""Task queue of the notifier's workflow and of deliveries. Engines and Temporal workers both poll it: each kind of
process can report the loss of the other."""
REPORT_ALERTS = "report_alerts"
"""A signal."""
QUERY_FIRING = "firing"

REPORT_SECONDS = 30.0
"""Interval of a process's reports while nothing changes."""
ALERTS_MAX = 300
"""Active alerts of one process that are reported. This and the following limits keep the notifier's state below 2 MiB,
which Temporal accepts."""
CHANNELS_MAX = 8
_TEXT_BYTES_MAX = 240


def _text(value: Any) -> Any:
    """On one line, without control characters: texts contain errors of other people's machines."""
    return (
        excerpt(escape_line(value[: _TEXT_BYTES_MAX + 1]), _TEXT_BYTES_MAX)
        if isinstance(value, str)
        else value
    )


AlertText = Annotated[str, BeforeValidator(_text)]
Role = Literal["engine", "worker"]


class ActiveAlert(TolerantModel):
    """An alert whose condition holds now."""

    name: str = Field(max_length=64)
    subject: AlertText = ""
    """The endpoint or process; empty: the deployment."""
    text: AlertText = ""
    """One sentence with figures, for operators."""


class NoticeChannel(TolerantModel):
    """A receiver of notices. Its address and secret are in the settings of the processes that deliver."""

    name: str = Field(max_length=64)
    alerts: tuple[str, ...] = ()
    """Names of the alerts that it receives; empty: all."""
    batch_max: int = Field(1, ge=1, le=100)
    """Notices in one delivery."""


class AlertReport(TolerantModel):
    """What one process sees."""

    role: Role
    place: str = Field(max_length=256)
    """Host, and port of an engine. A restarted process has the place of the one before it."""
    stopping: bool = False
    """Whether the process is shut down by its operator."""
    alerts: tuple[ActiveAlert, ...] = Field((), max_length=ALERTS_MAX)
    deployment: str = Field("", max_length=64)
    """Name of the deployment in notices."""
    channels: tuple[NoticeChannel, ...] = Field((), max_length=CHANNELS_MAX)


class Notice(TolerantModel):
    """An alert that began or ended."""

    id: str
    """Stable over retries: receivers drop a notice whose id they know."""
    incident: str
    """The same for the beginning and the end of one incident."""
    alert: str
    state: Literal["firing", "resolved", "test"]
    severity: Literal["page", "warn", "info"]
    subject: str = ""
    summary: str
    runbook: str = ""
    since: float
    """When the alert began to fire, Unix seconds."""
    at: float
    """When it began or ended, Unix seconds."""
    deployment: str = ""


class Delivery(TolerantModel):
    """Input of the activity that delivers notices to one channel."""

    channel: str
    notices: tuple[Notice, ...]
