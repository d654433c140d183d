"""Marketplace faults as Temporal should see them: final or worth another try, and never with a secret inside."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import structlog
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory

from activities.secrets import DeploymentSecrets
from market.port import InstanceGone, MarketError, OfferGone, RateLimited, Unavailable

_log = structlog.get_logger(__name__)

RETRY_AFTER_SECONDS_MAX = 120.0
"""A market that asks for an hour is asked again sooner: the workflow has its own, visible patience."""

_EXPECTED = (OfferGone, InstanceGone, Unavailable)
"""Everyday life of a marketplace: no error log, no error metric."""


def failure(error: MarketError, secrets: DeploymentSecrets) -> ApplicationError:
    """The market's error by its name: `type` is the MarketError class, final ones are never retried."""
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
def classified(secrets: DeploymentSecrets) -> Iterator[None]:
    """Turns a MarketError into the ApplicationError that says whether another try makes sense.

    The cause is left out on purpose: Temporal writes causes into the history, and a library's exception may
    quote the request that it was given.
    """
    try:
        yield
    except MarketError as error:
        raise failure(error, secrets) from None
    except ApplicationError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever it is, its text may quote a secret
        frames = [f"{frame.filename}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)]
        _log.error("market_adapter_fault", fault=type(error).__name__, frames=frames[-8:])
        raise ApplicationError(
            f"a fault in the market adapter: {type(error).__name__}; see the market worker's log",
            type="MarketAdapterFault",
        ) from None
