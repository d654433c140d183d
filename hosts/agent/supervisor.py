"""Reconciles one instance: compares its intended state with its actual state and takes one step at a time."""

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
from hosts.catalog.record import ActualStatus, InstanceRecord
from hosts.faults import FaultKind
from stoker_wire.security.redaction import redact, secret_values

log = structlog.get_logger(__name__)

LOG_BYTES_MAX = 32 * 2**20
LAST_LINE_BYTES = 4096
LAST_LINE_CHARS = 160


class InstanceSupervisor:
    """Runs one instance. Commands set the intended state, and `_step` moves towards it, one step at a time."""

    def __init__(
        self,
        record: InstanceRecord,
        slot: Slot,
        resources: SharedResources,
        *,
        on_removed: Callable[[int], object],
    ) -> None:
        self.record = record
        self.slot = slot
        self.resources = resources
        self._on_removed = on_removed
        self.process: InstanceProcess | None = None
        self._home = resources.home(record.id)
        self._wake = asyncio.Event()
        self._pending_restart: Literal["", "reboot", "recycle"] = ""
        self._final_action: Literal["", "destroy", "shutdown"] = ""
        self._offline_request: float | None = None
        self._online_timer: asyncio.TimerHandle | None = None
        self._stop_message = ""
        self._task: asyncio.Task[None] | None = None

    @property
    def tag(self) -> str:
        """The tag of every process of the instance."""
        return f"{self.resources.store.uid}:{self.record.id}"

    def __repr__(self) -> str:
        record = self.record
        return f"<Instance {record.id} {record.actual}, intended {record.intended}, {self.slot.name}>"

    # commands

    def start(self) -> None:
        """Begin to reconcile the instance; adopt its process if an earlier marketplace left it running."""
        record = self.record
        if record.pid is not None:
            self.process = InstanceProcess.adopt(
                self.tag, record.pid, record.pid_started, record.boot_id, self.resources.cpu.group(record.id)
            )
        record.pid = record.pid if self.process else None
        if self.process is not None:
            self.resources.ports.hold(record.port_base)
            self.resources.volumes.claim(record)
            # A killed governor may have left it suspended.
            proc.send(self.process.living(), signal.SIGCONT)
            self.resources.cpu.started(self.tag, self.process.pid, self.slot.machine.cpu_percent)
            self.process.watch(self._wake.set)
            log.info("instance_adopted", instance_id=record.id, pid=record.pid)
        self._start_task()

    def set_intended(self, state: Literal["running", "stopped"], message: str = "") -> None:
        """Set whether the instance should run."""
        record = self.record
        record.intended = state
        if record.hold_reason != "offline":
            record.hold_reason = ""
        self._stop_message = message
        self._save_and_wake()

    def restart(self, how: Literal["reboot", "recycle"]) -> None:
        """Stop the processes and start them again; `recycle` also empties the disk and pulls the image again."""
        self._pending_restart = how
        self._save_and_wake()

    def take_offline(self, seconds: float | None) -> None:
        """Take the machine offline for that many seconds, or until `bring_online`."""
        self._offline_request = seconds if seconds is not None else -1.0
        self._save_and_wake()

    def bring_online(self) -> None:
        """End an outage or a scheduling wait of the machine."""
        self._offline_request = None
        if self.record.hold_reason in ("offline", "scheduling"):
            self.record.hold_reason = ""
            self._save_and_wake()

    async def destroy(self) -> None:
        """Kill the processes and remove the disk; return when both are gone. Raises ProcessesLeft."""
        self._final_action = "destroy"
        await self._await_end()

    async def shutdown(self) -> None:
        """Stop the processes; the intended state stays, so the next marketplace starts the instance again."""
        self._final_action = self._final_action or "shutdown"
        await self._await_end()

    async def detach(self) -> None:
        """Stop reconciling and leave the instance running."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        if self._online_timer is not None:
            self._online_timer.cancel()
        if self.process is not None:
            self.process.unwatch()
        self.resources.store.save(self.record)

    def _start_task(self) -> None:
        self._task = asyncio.create_task(self._run(), name=f"instance {self.record.id}")

    async def _await_end(self) -> None:
        self._wake.set()
        if self._task is None or self._task.done():
            # An earlier attempt failed, e.g. on a full disk: try again.
            self._start_task()
        if self._task is not None:
            # Cancelling the caller must not interrupt the removal.
            await asyncio.shield(self._task)

    def _save_and_wake(self) -> None:
        self.resources.store.save(self.record)
        self._wake.set()

    # reconciliation

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            if self._final_action == "destroy":
                await self._remove()
                return
            if self._final_action == "shutdown":
                try:
                    await self._end(self.resources.settings.stop_grace_seconds)
                except ProcessesLeft as left:
                    log.error("instance_not_ended", instance_id=self.record.id, reason=str(left))
                    return
                if self.record.actual in ("running", "loading", "rebooting"):
                    self._set("stopped", "the marketplace ended")
                return
            try:
                if not await self._step():
                    await self._wake.wait()
            except Exception as error:  # noqa: BLE001  an instance's error must not stop the marketplace
                await self._on_failure(error)

    async def _on_failure(self, error: Exception) -> None:
        log.error(
            "instance_failed", instance_id=self.record.id, error=type(error).__name__, reason=str(error)
        )
        # Set before the await: a start command that arrives meanwhile clears it and must not be lost.
        self.record.hold_reason = "exited"
        self._pending_restart = ""
        with contextlib.suppress(OSError, sqlite3.Error, ProcessesLeft):
            await self._end(0)
        with contextlib.suppress(sqlite3.Error):
            self._set("exited", f"the host failed: {type(error).__name__}")

    async def _step(self) -> bool:
        """Take one step towards the intended state. Return False if there is nothing to do."""
        record = self.record
        if self._offline_request is not None:
            await self._go_offline(self._offline_request)
        elif record.hold_reason == "offline":
            return False
        elif self.process is not None and not self.process.alive:
            await self._on_exit()
        elif self._pending_restart:
            await self._restart(self._pending_restart)
        elif record.intended == "stopped" and (self.process is not None or record.actual != "stopped"):
            await self._stop()
        elif record.intended == "running" and self.process is None and not record.hold_reason:
            await self._boot()
        else:
            return False
        return True

    async def _boot(self) -> None:
        record, resources = self.record, self.resources
        facts = {"label": record.label, "machine": record.machine, "instance_id": record.id}
        if resources.faults.take(FaultKind.STUCK_SCHEDULING, **facts):
            record.hold_reason = "scheduling"
            self._set(record.actual, "waiting for its machine to be free")
            return
        self._set("loading", "starting")
        if not record.pulled:
            slow = resources.faults.take(FaultKind.SLOW_PULL, **facts)
            if not await self._pull(slow.factor if slow else 1.0):
                return
            record.pulled = True
        try:
            resources.ports.free(record.port_base)
            record.port_base = resources.ports.take(record.port_base)
        except NoPorts as error:
            record.hold_reason = "exited"
            self._set("exited", str(error))
            return
        await resources.volumes.prepare(record)
        fails = resources.faults.take(FaultKind.LOAD_FAILURE, **facts)
        self._spawn(["bash", "-c", "echo 'cannot load: fault injected' >&2; exit 1"] if fails else None)
        self._set("running", "running")
        if fault := resources.faults.take(FaultKind.HOST_DIES, **facts):
            self.take_offline(fault.seconds)
        elif resources.faults.take(FaultKind.OUTBID, **facts):
            self.set_intended("stopped", "outbid")

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
        record, resources = self.record, self.resources
        disk = self._home / "disk"
        (disk / "tmp").mkdir(parents=True, exist_ok=True)
        output = self._home / "log"
        if output.exists() and output.stat().st_size > LOG_BYTES_MAX:
            output.replace(self._home / "log.1")
        self.process = InstanceProcess.start(
            instead or command(record, self._home),
            tag=self.tag,
            env=environment(record, self.slot, resources.settings, disk)
            | resources.volumes.variables(record),
            cwd=disk,
            log=output,
            group=resources.cpu.prepare(record.id, self.slot.machine.cpu_percent),
        )
        record.pid, record.pid_started = self.process.pid, self.process.started
        record.boot_id = proc.boot_id()
        record.start_date = resources.now()
        resources.store.save(record)
        resources.cpu.started(self.tag, self.process.pid, self.slot.machine.cpu_percent)
        self.process.watch(self._wake.set)
        log.info("instance_started", instance_id=record.id, label=record.label, pid=record.pid)

    async def _on_exit(self) -> None:
        """End the other processes after the first one has exited, as in a container."""
        code = self.process.exit_code if self.process else None
        # Set before the await: a start command that arrives meanwhile clears it and must not be lost.
        self.record.hold_reason = "exited"
        await self._end(0)
        how = "exited" if code is None else f"exited with code {code}"
        try:
            last = await asyncio.to_thread(self._last_log_line)
        except OSError:
            last = ""
        self._set("exited", f"{how}: {last}" if last else how)
        log.info("instance_exited", instance_id=self.record.id, code=code)

    def _last_log_line(self) -> str:
        """The last line of the instance's log, with secret values redacted, for the status message."""
        with (self._home / "log").open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - LAST_LINE_BYTES))
            text = file.read().decode("utf-8", "replace")
        shown = (
            "".join(one if one.isprintable() else " " for one in line).strip() for line in text.splitlines()
        )
        last = next((line for line in reversed([*shown]) if line), "")
        return redact(last, secret_values(self.record.env))[:LAST_LINE_CHARS]

    async def _stop(self) -> None:
        message, self._stop_message = self._stop_message, ""
        await self._end(self.resources.settings.stop_grace_seconds)
        self._pending_restart = ""
        self._set("stopped", message or "stopped")
        log.info("instance_stopped", instance_id=self.record.id, reason=message or "requested")

    async def _restart(self, how: str) -> None:
        self._set("rebooting", how)
        await self._end(self.resources.settings.stop_grace_seconds)
        self._pending_restart = ""
        if how == "recycle":
            self.record.pulled = False
            await asyncio.to_thread(shutil.rmtree, self._home / "disk", ignore_errors=True)
            (self._home / "image").unlink(missing_ok=True)
        self.record.hold_reason = ""

    async def _go_offline(self, seconds: float) -> None:
        self._offline_request = None
        self.record.hold_reason = "offline"
        await self._end(0)
        self._set("offline", "the machine does not answer")
        log.info("instance_offline", instance_id=self.record.id)
        if seconds > 0:
            self._online_timer = asyncio.get_running_loop().call_later(seconds, self.bring_online)

    async def _end(self, grace_seconds: float) -> None:
        """End every process of the instance. Raises ProcessesLeft."""
        if self.process is not None:
            self.resources.cpu.ending(self.tag)
            await self.process.end(
                grace_seconds=grace_seconds,
                hurry=lambda: self._final_action == "destroy" or self._offline_request is not None,
            )
            self.process = None
        self.resources.cpu.ended(self.record.id)
        self.resources.volumes.release(self.record.id)
        self.record.pid = None
        self.resources.store.save(self.record)

    async def _remove(self) -> None:
        await self._end(0)
        if self._online_timer is not None:
            self._online_timer.cancel()
        record = self.record
        now = self.resources.now()
        record.set_actual(None, now)
        record.meter.storage_until = now
        self.resources.ports.free(record.port_base)
        await asyncio.to_thread(shutil.rmtree, self._home, ignore_errors=True)
        self.resources.store.archive(record, now)
        self._on_removed(record.id)
        log.info("instance_destroyed", instance_id=record.id, label=record.label)

    def _set(self, actual: ActualStatus | None, message: str) -> None:
        self.record.set_actual(actual, self.resources.now(), message)
        self.resources.store.save(self.record)
