"""Routes, models and workload rules of an endpoint's workers, by their reports."""

from collections.abc import Collection, Mapping
from typing import Any

from stoker_wire.route import DEFAULT_COST
from stoker_wire.worker_status import WorkerStatus
from stoker_wire.workload import OUTPUT_TOKEN_FIELDS, FieldWorkload, ServedRoute

_UNKNOWN_RULE = FieldWorkload(fields=OUTPUT_TOKEN_FIELDS, default=DEFAULT_COST)
"""For code that only the worker has: most of it counts output tokens, and the ratio to this rule is learned."""
_LEARNING_RATE = 0.5
_RATIO_MAX = 1e6
_LEARNED_MAX = 1000


class ServedRoutes:
    """One endpoint's routes and models. The last report of each worker counts; they outlive the last worker."""

    def __init__(self) -> None:
        self._reports: dict[str, tuple[tuple[ServedRoute, ...], tuple[str, ...]]] = {}
        self._ratios: dict[str, float] = {}
        self._routes: dict[str, ServedRoute] = {}
        self._complete = False
        self.models: tuple[str, ...] = ()
        """Names of all models; empty: not known."""

    def __repr__(self) -> str:
        return f"<ServedRoutes {', '.join(self._routes) or 'not known'}, {len(self.models)} models>"

    def hear(self, launch_id: str, status: WorkerStatus, launch_ids: Collection[str]) -> None:
        """Take over a worker's report; `launch_ids` are the workers that exist."""
        report = (status.routes, status.models)
        if self._reports.get(launch_id) == report:
            return
        self._reports = {known: said for known, said in self._reports.items() if known in launch_ids}
        self._reports[launch_id] = report
        reports = self._reports.values()
        self._complete = all(routes for routes, _ in reports)
        self._routes = {route.path: route for routes, _ in reports for route in routes}
        names = dict.fromkeys(name for _, models in reports for name in models)
        if names or status.loadtime > 0:  # a worker that loads knows no names yet
            self.models = tuple(names)

    @property
    def paths(self) -> tuple[str, ...]:
        """The paths that are served; empty: not known, or some workers do not report theirs."""
        return tuple(self._routes) if self._complete else ()

    def models_of(self, launch_id: str) -> tuple[str, ...]:
        """Names of the models of one worker; empty: not known."""
        return self._reports.get(launch_id, ((), ()))[1]

    def workload(self, path: str, payload: Mapping[str, Any] | None, body_bytes: int) -> float:
        """The workload that the worker will compute for this request, as far as it is known."""
        route = self._routes.get(path)
        if route is not None and route.rule is not None:
            return route.rule.workload(payload, body_bytes)
        if route is not None and not route.calculated:
            return DEFAULT_COST
        return _UNKNOWN_RULE.workload(payload) * self._ratios.get(path, 1.0)

    def learn(self, path: str, payload: Mapping[str, Any] | None, workload: float) -> None:
        """A worker has computed this workload for the request by code of its own."""
        route = self._routes.get(path)
        estimate = _UNKNOWN_RULE.workload(payload)
        if estimate <= 0 or (route is not None and (route.rule is not None or not route.calculated)):
            return
        if path not in self._ratios and len(self._ratios) >= _LEARNED_MAX:
            return
        ratio, known = min(workload / estimate, _RATIO_MAX), self._ratios.get(path)
        self._ratios[path] = ratio if known is None else known + _LEARNING_RATE * (ratio - known)
