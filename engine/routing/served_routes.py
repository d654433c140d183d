"""Routes, models and workload rules of an endpoint's workers, by their reports."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from stoker_wire.http.path_pattern import PathPattern, RouteTable
from stoker_wire.route import DEFAULT_COST
from stoker_wire.worker_status import WorkerStatus
from stoker_wire.workload import OUTPUT_TOKEN_FIELDS, FieldWorkload, ServedRoute

_UNKNOWN_RULE = FieldWorkload(fields=OUTPUT_TOKEN_FIELDS, default=DEFAULT_COST)
"""For code that only the worker has: most of it counts output tokens, and the ratio to this rule is learned."""
_LEARNING_RATE = 0.5
_RATIO_MAX = 1e6
_LEARNED_MAX = 1000


@dataclass(frozen=True, slots=True)
class _Route:
    """A reported route, for the table."""

    reported: ServedRoute
    pattern: PathPattern

    @property
    def methods(self) -> tuple[str, ...]:
        return self.reported.methods

    @property
    def websocket(self) -> bool:
        return self.reported.websocket


_RESOLVED_MAX = 1000


class ServedRoutes:
    """One endpoint's routes and models. The last report of each worker counts; they outlive the last worker."""

    def __init__(self) -> None:
        self._reports: dict[str, tuple[tuple[ServedRoute, ...], tuple[str, ...]]] = {}
        self._ratios: dict[str, float] = {}
        self._table: RouteTable[_Route] = RouteTable(())
        self._complete = False
        self._job_cost = DEFAULT_COST
        self._resolved: dict[tuple[str, str, bool], tuple[str, ServedRoute | None]] = {}
        self.models: tuple[str, ...] = ()
        """Names of all models; empty: not known."""

    def __repr__(self) -> str:
        return f"<ServedRoutes {', '.join(self._texts) or 'not known'}, {len(self.models)} models>"

    def hear(self, launch_id: str, status: WorkerStatus, launch_ids: Collection[str]) -> None:
        """Take over a worker's report; `launch_ids` are the workers that exist."""
        report = (status.routes, status.models)
        if self._reports.get(launch_id) == report:
            return
        self._reports = {known: said for known, said in self._reports.items() if known in launch_ids}
        self._reports[launch_id] = report
        self._resolved.clear()
        reports = self._reports.values()
        self._complete = all(routes for routes, _ in reports)
        routes = {
            (route.path, route.methods, route.websocket): route for routes, _ in reports for route in routes
        }
        self._table = RouteTable(
            made for made in (_route(reported) for reported in routes.values()) if made is not None
        )
        costs = [route.rule.workload(None) for route in routes.values() if route.in_job and route.rule]
        self._job_cost = max(costs, default=0.0) or DEFAULT_COST
        names = dict.fromkeys(name for _, models in reports for name in models)
        if names or status.loadtime > 0:  # a worker that loads knows no names yet
            self.models = tuple(names)

    @property
    def paths(self) -> tuple[str, ...]:
        """The paths and patterns that are served; empty: not known, or some workers do not report theirs."""
        return self._texts if self._complete else ()

    @property
    def _texts(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(route.pattern.text for route in self._table.routes))

    def find(self, method: str, path: str, *, websocket: bool = False) -> ServedRoute | None:
        """The route of a request, if it is known."""
        route = self._table.find(method, path, websocket=websocket)
        return None if route is None else route.reported

    def resolved(self, method: str, path: str, *, websocket: bool) -> tuple[str, ServedRoute | None] | None:
        """The answer that `remember` stored for such calls; None: no answer is stored, or reports have changed since."""
        return self._resolved.get((method, path, websocket))

    def remember(
        self, method: str, path: str, found: tuple[str, ServedRoute | None], *, websocket: bool
    ) -> None:
        """Remember the path at the worker and the route of such calls, which took some time to find."""
        if len(self._resolved) >= _RESOLVED_MAX:
            self._resolved.clear()
        self._resolved[method, path, websocket] = found

    def methods(self, path: str) -> tuple[str, ...]:
        """The methods that workers take at a path; empty: none is known."""
        return self._table.allowed(path)

    def models_of(self, launch_id: str) -> tuple[str, ...]:
        """Names of the models of one worker; empty: not known."""
        return self._reports.get(launch_id, ((), ()))[1]

    @property
    def takes_jobs(self) -> bool | None:
        """Whether some route is for jobs; None: not known, because not every worker reports its routes."""
        if any(route.reported.in_job for route in self._table.routes):
            return True
        return False if self.paths else None

    @property
    def job_cost(self) -> float:
        """The workload of a usual job: the largest default among the rules of its routes."""
        return self._job_cost

    def workload(
        self, route: ServedRoute | None, path: str, payload: Mapping[str, Any] | None, body_bytes: int
    ) -> float:
        """The workload that the worker will compute for a request, as far as it is known.

        A ticket for a job pays for all of its calls.
        """
        if route is None or (route.rule is None and route.calculated):
            return _UNKNOWN_RULE.workload(payload) * self._ratios.get(_learned(route, path), 1.0)
        own = DEFAULT_COST if route.rule is None else route.rule.workload(payload, body_bytes)
        if not route.in_job:
            return own
        return max(self._job_cost, 0.0 if route.rule is None else own)

    def learn(
        self, route: ServedRoute | None, path: str, payload: Mapping[str, Any] | None, workload: float
    ) -> None:
        """A worker has computed this workload for the request by code of its own."""
        estimate = _UNKNOWN_RULE.workload(payload)
        if estimate <= 0 or (route is not None and (route.rule is not None or not route.calculated)):
            return
        path = _learned(route, path)
        if path not in self._ratios and len(self._ratios) >= _LEARNED_MAX:
            return
        ratio, known = min(workload / estimate, _RATIO_MAX), self._ratios.get(path)
        self._ratios[path] = ratio if known is None else known + _LEARNING_RATE * (ratio - known)


def _learned(route: ServedRoute | None, path: str) -> str:
    return path if route is None else route.path


def _route(reported: ServedRoute) -> _Route | None:
    try:
        return _Route(reported, PathPattern(reported.path))
    except ValueError:  # a worker reports nonsense
        return None
