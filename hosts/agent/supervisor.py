"""One instance's life: what is wanted is compared with what is, and one step is taken, until nothing is left to do."""

import asyncio
import contextlib
import os
import shutil
import signal
import sqlite3
from collections.abc import Callable
from typing import Literal

import structlog

from hosts.agent import proc
from hosts.agent.environment import command, environment
from hosts.agent.process import InstanceProcess, ProcessesLeft
from hosts.agent.pull import pull
from hosts.agent.resources import SharedResources
from hosts.catalog.catalog import Slot
from hosts.catalog.ports import NoPorts
from hosts.catalog.record import Actual, InstanceRecord
from hosts.faults import FaultKind
from stoker_wire.security.redaction import redact, secret_values

log = structlog.get_logger(__name__)

LOG_BYTES_MAX = 32 * 2**20
LAST_WORDS_BYTES = 4096
LAST_WORDS_CHARS = 160


class InstanceSupervisor:
    """Runs one instance. Commands only say what is wanted; `_step` does the rest, so nothing depends on their order."""

    def __init__(
        self, record: InstanceRecord, slot: Slot, means: SharedResources, *, on_gone: Callable[[int], object]
    ) -> None:
        self.record = record
        self.slot = slot
        self.means = means
        self._on_gone = on_gone
        self.process: InstanceProcess | None = None
        self._home = means.home(record.id)
        self._wake = asyncio.Event()
        self._again: Literal["", "reboot", "recycle"] = ""
        self._ending: Literal["", "destroy", "shutdown"] = ""
        self._dies: float | None = None
        self._comes_back: asyncio.TimerHandle | None = None
        self._message = ""
        self._task: asyncio.Task[None] | None = None

    @property
    def mark(self) -> str:
        """Carried by every process of the instance."""
        return f"{self.means.store.uid}:{self.record.id}"

    def __repr__(self) -> str:
        record = self.record
        return f"<Instance {record.id} {record.actual}, wanted {record.wanted}, {self.slot.name}>"

    # commands

    def begin(self) -> None:
        """Start to look after the instance; adopts its process if an earlier marketplace left it running."""
        record = self.record
        if record.pid is not None:
            self.process = InstanceProcess.adopt(
                self.mark, record.pid, record.pid_started, record.boot_id, self.means.cpu.group(record.id)
            )
        record.pid = record.pid if self.process else None
        if self.process is not None:
            self.means.ports.hold(record.port_base)
            # A governor that was killed may have left it suspended.
            proc.send(self.process.living(), signal.SIGCONT)
            self.means.cpu.started(self.mark, self.process.pid, self.slot.machine.cpu_percent)
            self.process.watch(self._wake.set)
            log.info("instance_adopted", instance_id=record.id, pid=record.pid)
        self._look_after()

    def want(self, state: Literal["running", "stopped"], message: str = "") -> None:
        """Start or stop it."""
        record = self.record
        record.wanted = state
        if record.held != "offline":
            record.held = ""
        self._message = message
        self._changed()

    def again(self, how: Literal["reboot", "recycle"]) -> None:
        """End its processes and run it again; `recycle` from a fresh disk and a newly pulled image."""
        self._again = how
        self._changed()

    def die(self, seconds: float | None) -> None:
        """Its machine goes down, for that long or until `come_back`."""
        self._dies = seconds if seconds is not None else -1.0
        self._changed()

    def come_back(self) -> None:
        """Its machine is there again; what waited for it goes on."""
        self._dies = None
        if self.record.held in ("offline", "scheduling"):
            self.record.held = ""
            self._changed()

    async def destroy(self) -> None:
        """End it at once and remove what it had; returns when nothing is left."""
        self._ending = "destroy"
        await self._until_ended()

    async def shutdown(self) -> None:
        """End its processes with the marketplace; it is still wanted, and runs again with the next one."""
        self._ending = self._ending or "shutdown"
        await self._until_ended()

    async def leave(self) -> None:
        """Stop looking after it, and let it run."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        if self._comes_back is not None:
            self._comes_back.cancel()
        if self.process is not None:
            self.process.unwatch()
        self.means.store.save(self.record)

    def _look_after(self) -> None:
        self._task = asyncio.create_task(self._run(), name=f"instance {self.record.id}")

    async def _until_ended(self) -> None:
        self._wake.set()
        if self._task is None or self._task.done():
            # The end before failed, e.g. on a full disk: try again.
            self._look_after()
        if self._task is not None:
            # A caller that goes away does not stop the end half-way.
            await asyncio.shield(self._task)

    def _changed(self) -> None:
        self.means.store.save(self.record)
        self._wake.set()

    # life

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            if self._ending == "destroy":
                await self._remove()
                return
            if self._ending == "shutdown":
                try:
                    await self._end(self.means.settings.stop_grace_seconds)
                except ProcessesLeft as left:
                    log.error("instance_not_ended", instance_id=self.record.id, reason=str(left))
                    return
                if self.record.actual in ("running", "loading", "rebooting"):
                    self._set("stopped", "the marketplace ended")
                return
            try:
                if not await self._step():
                    await self._wake.wait()
            except Exception as error:  # noqa: BLE001  one instance's fault, e.g. a full disk, is not the marketplace's
                await self._fail(error)

    async def _fail(self, error: Exception) -> None:
        log.error(
            "instance_failed", instance_id=self.record.id, error=type(error).__name__, reason=str(error)
        )
        # Before the first await: a start that arrives meanwhile lifts it again and must not be lost.
        self.record.held = "exited"
        self._again = ""
        with contextlib.suppress(OSError, sqlite3.Error, ProcessesLeft):
            await self._end(0)
        with contextlib.suppress(sqlite3.Error):
            self._set("exited", f"the host failed: {type(error).__name__}")

    async def _step(self) -> bool:
        """Take one step towards what is wanted; False if there is none to take."""
        record = self.record
        if self._dies is not None:
            await self._go_offline(self._dies)
        elif record.held == "offline":
            return False
        elif self.process is not None and not self.process.alive:
            await self._exited()
        elif self._again:
            await self._restart(self._again)
        elif record.wanted == "stopped" and (self.process is not None or record.actual != "stopped"):
            await self._halt()
        elif record.wanted == "running" and self.process is None and not record.held:
            await self._boot()
        else:
            return False
        return True

    async def _boot(self) -> None:
        record, means = self.record, self.means
        facts = {"label": record.label, "machine": record.machine, "instance_id": record.id}
        if means.faults.take(FaultKind.STUCK_SCHEDULING, **facts):
            record.held = "scheduling"
            self._set(record.actual, "waiting for its machine to be free")
            return
        self._set("loading", "starting")
        if not record.pulled:
            slow = means.faults.take(FaultKind.SLOW_PULL, **facts)
            if not await self._pull(slow.factor if slow else 1.0):
                return
            record.pulled = True
        try:
            means.ports.free(record.port_base)
            record.port_base = means.ports.take(record.port_base)
        except NoPorts as error:
            record.held = "exited"
            self._set("exited", str(error))
            return
        fails = means.faults.take(FaultKind.LOAD_FAILURE, **facts)
        self._spawn(["bash", "-c", "echo 'cannot load: fault injected' >&2; exit 1"] if fails else None)
        self._set("running", "running")
        if fault := means.faults.take(FaultKind.HOST_DIES, **facts):
            self.die(fault.seconds)
        elif means.faults.take(FaultKind.OUTBID, **facts):
            self.want("stopped", "outbid")

    async def _pull(self, slower: float) -> bool:
        machine = self.slot.machine
        self._home.mkdir(parents=True, exist_ok=True)

        def progress(done_mb: float) -> None:
            self.record.status_msg = f"pulling image: {done_mb:.0f} of {machine.pull_mb:.0f} MB"

        return await pull(
            self._home / "image",
            size_mb=machine.pull_mb,
            mb_per_second=machine.pull_mb_per_second / slower,
            interrupted=self._wake.is_set,
            progress=progress,
        )

    def _spawn(self, instead: list[str] | None) -> None:
        record, means = self.record, self.means
        disk = self._home / "disk"
        (disk / "tmp").mkdir(parents=True, exist_ok=True)
        output = self._home / "log"
        if output.exists() and output.stat().st_size > LOG_BYTES_MAX:
            output.replace(self._home / "log.1")
        self.process = InstanceProcess.start(
            instead or command(record, self._home),
            mark=self.mark,
            env=environment(record, self.slot, means.settings, disk),
            cwd=disk,
            log=output,
            group=means.cpu.prepare(record.id, self.slot.machine.cpu_percent),
        )
        record.pid, record.pid_started = self.process.pid, self.process.started
        record.boot_id = proc.boot_id()
        record.start_date = means.now()
        means.store.save(record)
        means.cpu.started(self.mark, self.process.pid, self.slot.machine.cpu_percent)
        self.process.watch(self._wake.set)
        log.info("instance_runs", instance_id=record.id, label=record.label, pid=record.pid)

    async def _exited(self) -> None:
        """As in a container: when the first process ends, the others end with it."""
        code = self.process.exit_code if self.process else None
        # Before the await: a start that arrives meanwhile lifts it again and must not be lost.
        self.record.held = "exited"
        await self._end(0)
        how = "exited" if code is None else f"exited with code {code}"
        try:
            last = await asyncio.to_thread(self._last_words)
        except OSError:
            last = ""
        self._set("exited", f"{how}: {last}" if last else how)
        log.info("instance_exited", instance_id=self.record.id, code=code)

    def _last_words(self) -> str:
        """The last line of the instance's log, without the values of secret variables: it becomes part of the status."""
        with (self._home / "log").open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - LAST_WORDS_BYTES))
            text = file.read().decode("utf-8", "replace")
        shown = (
            "".join(one if one.isprintable() else " " for one in line).strip() for line in text.splitlines()
        )
        said = next((line for line in reversed([*shown]) if line), "")
        return redact(said, secret_values(self.record.env))[:LAST_WORDS_CHARS]

    async def _halt(self) -> None:
        message, self._message = self._message, ""
        await self._end(self.means.settings.stop_grace_seconds)
        self._again = ""
        self._set("stopped", message or "stopped")
        log.info("instance_stopped", instance_id=self.record.id, reason=message or "asked")

    async def _restart(self, how: str) -> None:
        self._set("rebooting", how)
        await self._end(self.means.settings.stop_grace_seconds)
        self._again = ""
        if how == "recycle":
            self.record.pulled = False
            await asyncio.to_thread(shutil.rmtree, self._home / "disk", ignore_errors=True)
            (self._home / "image").unlink(missing_ok=True)
        self.record.held = ""

    async def _go_offline(self, seconds: float) -> None:
        self._dies = None
        self.record.held = "offline"
        await self._end(0)
        self._set("offline", "the machine does not answer")
        log.info("instance_offline", instance_id=self.record.id)
        if seconds > 0:
            self._comes_back = asyncio.get_running_loop().call_later(seconds, self.come_back)

    async def _end(self, grace_seconds: float) -> None:
        """No process of the instance is left afterwards."""
        if self.process is not None:
            self.means.cpu.ending(self.mark)
            await self.process.end(
                grace_seconds=grace_seconds, hurry=lambda: self._ending == "destroy" or self._dies is not None
            )
            self.process = None
        self.means.cpu.ended(self.record.id)
        self.record.pid = None
        self.means.store.save(self.record)

    async def _remove(self) -> None:
        await self._end(0)
        if self._comes_back is not None:
            self._comes_back.cancel()
        record = self.record
        now = self.means.now()
        record.set_actual(None, now)
        record.meter.storage_until = now
        self.means.ports.free(record.port_base)
        await asyncio.to_thread(shutil.rmtree, self._home, ignore_errors=True)
        self.means.store.bury(record, now)
        self._on_gone(record.id)
        log.info("instance_destroyed", instance_id=record.id, label=record.label)

    def _set(self, actual: Actual | None, message: str) -> None:
        self.record.set_actual(actual, self.means.now(), message)
        self.means.store.save(self.record)
