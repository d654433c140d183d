"""Converts marketplace errors to Temporal's: retryable or not, and without secrets."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import structlog
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory

from activities.secrets import DeploymentSecrets
from market.interface import InstanceGone, MarketError, OfferGone, RateLimited, Unavailable

_log = structlog.get_logger(__name__)

RETRY_AFTER_SECONDS_MAX = 120.0
"""Longest delay taken over from a rate limit; the workflow applies its own backoff beyond it."""

_EXPECTED = (OfferGone, InstanceGone, Unavailable)
"""Normal events of a marketplace: neither error log nor error metric."""


def failure(error: MarketError, secrets: DeploymentSecrets) -> ApplicationError:
    """The ApplicationError for a market error: `type` is the name of its class; final errors are not retried."""
    wait: timedelta | None = None
    if isinstance(error, RateLimited) and error.retry_after_s is not None:
        wait = timedelta(seconds=min(max(error.retry_after_s, 0.0), RETRY_AFTER_SECONDS_MAX))
    expected = isinstance(error, _EXPECTED)
    return ApplicationError(
        secrets.redact(str(error)) or type(error).__name__,
        type=type(error).__name__,
        non_retryable=error.final,
        next_retry_delay=wait,
        category=ApplicationErrorCategory.BENIGN if expected else ApplicationErrorCategory.UNSPECIFIED,
    )


@contextmanager
def converted_errors(secrets: DeploymentSecrets) -> Iterator[None]:
    """Convert every exception to an ApplicationError that says whether a retry makes sense.

    The cause is omitted: Temporal writes it to the history, and a library's exception may quote a secret.
    """
    try:
        yield
    except MarketError as error:
        raise failure(error, secrets) from None
    except ApplicationError:
        raise
    except Exception as error:  # noqa: BLE001 - the text of any exception may quote a secret
        frames = [f"{frame.filename}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)]
        _log.error("market_adapter_fault", fault=type(error).__name__, frames=frames[-8:])
        raise ApplicationError(
            f"a fault in the market adapter: {type(error).__name__}; see the market worker's log",
            type="MarketAdapterFault",
        ) from None
