"""How many workers an endpoint may have, and must keep."""

from policy.state.observation import Observation
from stoker_wire.endpoint import EndpointConfig

WORKERS_MAX = 1000
"""Upper bound for `max_workers`.

The workflow state takes 1.2 to 1.5 KB per worker, and Temporal refuses a state over 2 MiB.
"""


def workers_max(config: EndpointConfig) -> int:
    """The largest number of workers: `max_workers`, bounded by `WORKERS_MAX`."""
    return min(config.max_workers, WORKERS_MAX)


def workers_min(observation: Observation) -> int:
    """The number of loaded workers to keep, hot or cold.

    The larger of `min_workers` and the sum of `cold_workers`.
    """
    config = observation.config
    groups = sum(
        min(group.cold_workers or 0, config.max_workers if group.max_workers is None else group.max_workers)
        for group in observation.workergroups
    )
    return min(max(config.min_workers, groups), config.max_workers)
