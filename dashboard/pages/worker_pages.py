"""The page of one worker: state, boot, log of its machine, and what an operator can do with it."""

import time
from typing import Any

from aiohttp import web

import stoker
from dashboard.pages.sessions import Session
from dashboard.pages.shell import Shell, endpoint_number, form
from dashboard.rendering import boot_rows, numbered, worker_row
from dashboard.sampler import Account
from stoker_wire.control import WorkerAction
from stoker_wire.errors.problem import Problem

LOG_LINES = 300
WORKER_SECONDS = 3.0
"""Shortest time between two readings of a worker and its log. Doubled: half the calls of the marketplace."""

ACTIONS = {
    WorkerAction.DRAIN: (
        "Drain",
        "It gets no new request. Once it is empty it is stopped, and it stays out of service until it is resumed.",
    ),
    WorkerAction.RESUME: ("Resume", "It is back in service."),
    WorkerAction.REBOOT: ("Reboot", "Its container is restarted. A ready worker is drained first."),
    WorkerAction.DESTROY: (
        "Destroy",
        "Its machine is released with its disk. A ready worker is drained first; another may be rented for it.",
    ),
}
"""Verb and effect of each action."""
_DONE = {
    WorkerAction.DRAIN: "The worker is taken out of service.",
    WorkerAction.RESUME: "The worker is back in service.",
    WorkerAction.REBOOT: "The worker is rebooted once it is empty.",
    WorkerAction.DESTROY: "The worker is destroyed once it is empty.",
}


class WorkerPages:
    """The handlers. A worker is named by its launch id, so its page stays after its end."""

    def __init__(self, shell: Shell) -> None:
        self._shell = shell

    def routes(self) -> list[web.RouteDef]:
        """All paths."""
        here = r"/endpoints/{id:\d+}/workers/{worker:[\w-]{1,64}}"
        return [
            web.get(here, self._shell.signed_in(self._page)),
            web.get(f"{here}/events", self._shell.signed_in(self._events)),
            web.post(f"{here}/act", self._shell.changing(self._act)),
        ]

    async def _page(self, request: web.Request, session: Session, account: Account) -> web.Response:
        number, worker = endpoint_number(request, account), request.match_info["worker"]
        parts, row = await self._parts(account, number, worker)
        return self._shell.render(
            "worker.html",
            session,
            parts=parts,
            live=f"/endpoints/{number}/workers/{worker}/events",
            title=f"Worker {worker}",
            worker=worker,
            figures=account.overview[number],
            actions=_possible(row),
        )

    async def _events(self, request: web.Request, session: Session, account: Account) -> web.StreamResponse:
        number, worker = endpoint_number(request, account), request.match_info["worker"]

        async def parts() -> dict[str, str]:
            return (await self._parts(account, number, worker))[0]

        return await self._shell.stream(request, parts)

    async def _parts(
        self, account: Account, number: int, worker: str
    ) -> tuple[dict[str, str], dict[str, Any] | None]:
        now = time.time()
        details = await self._shell.details(account, number)
        found = [each for each in details.workers if worker in {_launch_id(each), str(each.id)}]
        row = worker_row(found[0]) if found else None
        decisions = [line for line in numbered(details.decisions) if line["subject"] == worker]
        if row is None and not decisions:
            raise Problem(404, "no_such_worker", f"this endpoint has no worker {worker}; see its page")
        record, log = await account.worker(number, worker, lines=LOG_LINES, seconds_max=WORKER_SECONDS)
        if row is not None and record is not None:
            detailed = worker_row(record)
            row |= {
                "boot": boot_rows(detailed["boot"]),
                "began_at": detailed["boot"][0]["at"] if detailed["boot"] else None,
                "error_msg": detailed["error_msg"],
            }
        parts = {
            "notice": self._shell.part("notice.html", fault=account.fault, details=details),
            "worker": self._shell.part("worker_head.html", w=row, now=now),
            "decisions": self._shell.part("decisions.html", decisions=decisions, number=0, now=now),
            "log": self._shell.part("log.html", log=log),
        }
        return parts, row

    async def _act(self, request: web.Request, session: Session, account: Account) -> web.Response:
        number, worker = endpoint_number(request, account), request.match_info["worker"]
        given = await form(request)
        try:
            action = WorkerAction(given.get("action", ""))
        except ValueError:
            names = ", ".join(WorkerAction)
            raise Problem(400, "invalid_args", f"action: should be one of {names}") from None
        if action is WorkerAction.DESTROY and given.get("sure") != "yes":
            raise Problem(400, "not_confirmed", "tick the box to confirm that the machine is released")
        here = f"/endpoints/{number}/workers/{worker}"
        work = account.client.endpoints.change_worker(number, worker, action)
        return await self._shell.act(account, number, session, work, _DONE[action], to=here, back=here)


def _launch_id(worker: stoker.WorkerRecord) -> str:
    return str((worker.model_extra or {}).get("launch_id") or "")


def _possible(row: dict[str, Any] | None) -> list[tuple[WorkerAction, str, str]]:
    """The actions that fit the worker's present state."""
    if row is None or row["status"] == "destroying":
        return []
    out = row.get("held") or row.get("draining")
    left_out = {WorkerAction.DRAIN if row.get("held") else None, None if out else WorkerAction.RESUME}
    if row["status"] not in {"idle", "error"}:
        left_out.add(WorkerAction.REBOOT)
    return [(action, *words) for action, words in ACTIONS.items() if action not in left_out]
