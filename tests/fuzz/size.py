"""The number of examples per test."""

from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, Phase, settings

LONG = False
_CALM = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large]
settings.register_profile(
    "bounded", deadline=None, derandomize=True, database=None, print_blob=True, suppress_health_check=_CALM
)
settings.register_profile(
    "thousands",
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=_CALM,
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
)


def examples(bounded: int, thousands: int | None = None) -> Callable[[Any], Any]:
    """Settings for a test: the number of examples in `make test` and in `make test-long`."""
    if LONG:
        return settings(settings.get_profile("thousands"), max_examples=thousands or bounded * 30)
    return settings(settings.get_profile("bounded"), max_examples=bounded)
