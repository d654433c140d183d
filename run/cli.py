"""The command line of `stokerd`."""

import asyncio
import errno
import os
import signal
import socket
import sys
from collections.abc import Callable, Coroutine
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
import uvloop

from run.errors import CommandError
from run.logs import configure_logs
from run.output import drop_output, is_reader_closed, open_standard_files
from run.settings import DeploymentSettings, load_settings
from run.state_folder.keys import load_account_key, load_keys
from run.state_folder.secure_files import UMASK
from stoker.cli.numbers import StrictGroup
from stoker_wire.http1.limits import raise_files_max
from stoker_wire.parsing.escaping import escape_text

app = typer.Typer(
    cls=StrictGroup,
    name="stokerd",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        help="The settings file. Default: temporal-dev.yaml in this folder, else the built-in settings.",
        show_default=False,
    ),
]
BuildId = Annotated[
    str | None,
    typer.Option(help="Build of the worker's code, if worker.deployment is set.", envvar="STOKER_BUILD_ID"),
]
MarketName = Literal["hosts", "vast"]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


def _version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"stokerd {metadata.version('stoker-controller')}\n")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """The stoker deployment: an open, self-hosted serverless GPU engine on Temporal."""


@app.command()
def dev(config: Config = None) -> None:
    """Run everything on this machine: Temporal with its UI, marketplace, Temporal worker, engine."""
    from run.commands.dev import run_dev  # noqa: PLC0415 - each role loads only what it needs

    _run("dev", config, lambda settings: run_dev(settings, config=config))


@app.command()
def demo(
    config: Config = None,
    chaos: Annotated[bool, typer.Option(help="Kill the worker, the engine and a PyWorker.")] = False,
    state_dir: Annotated[Path, typer.Option(help="Emptied at the start.")] = Path(".demo"),
    picture: Annotated[Path, typer.Option(help="SVG file of the dashboard's charts.")] = Path(
        ".demo/demo.svg"
    ),
    keep: Annotated[bool, typer.Option("--keep", help="Wait for Enter before the end.")] = False,
) -> None:
    """Scale from zero workers to a burst and back to zero on this machine, in under three minutes."""
    from run.demo.scenario import run_demo  # noqa: PLC0415

    _run(
        "demo",
        config,
        lambda settings: run_demo(
            settings, state_dir=state_dir.resolve(), chaos=chaos, picture=picture, keep=keep
        ),
        level="error",
    )


@app.command()
def engine(config: Config = None) -> None:
    """Run one engine: routing, worker reports, console API. Several can run side by side."""
    from run.roles.engine import run_engine  # noqa: PLC0415

    _run("engine", config, run_engine)


@app.command()
def dashboard(config: Config = None) -> None:
    """Run the web page: endpoints, workers, requests, decisions and costs."""
    from run.roles.dashboard import run_dashboard  # noqa: PLC0415

    _run("dashboard", config, run_dashboard)


@app.command()
def worker(config: Config = None, build_id: BuildId = None) -> None:
    """Run one Temporal worker: endpoint workflows, planner and marketplace calls."""
    from run.roles.temporal_worker import run_worker  # noqa: PLC0415

    _run("worker", config, lambda settings: run_worker(settings.with_build(build_id)))


@app.command()
def rollout(
    config: Config = None,
    build_id: BuildId = None,
    seconds: Annotated[float, typer.Option(help="How long to wait for the workflows.", min=1)] = 120.0,
) -> None:
    """Move every running endpoint to this worker build; an older one is a downgrade. See docs/how-to/upgrade.md."""
    from run.commands.rollout import roll_out  # noqa: PLC0415
    from run.processes.temporal_server import PERSON_SECONDS_MAX, connect_to, temporal_target  # noqa: PLC0415

    async def act(settings: DeploymentSettings) -> None:
        target = temporal_target(settings.temporal)
        typer.echo(f"Temporal {target}")
        client = await connect_to(target, wait_seconds_max=PERSON_SECONDS_MAX)
        choice = settings.with_build(build_id).worker
        done = await roll_out(client, choice, seconds_max=seconds, say=typer.echo)
        if done.left:
            raise CommandError(
                f"still on another build after {seconds:.0f} s: {', '.join(done.left)}; do the workers of "
                f"{'build ' + done.before if done.before else 'their build'} still run? Then run it again",
                exit_code=1,
            )
        rest = f"; workers of build {done.before} can be stopped" if done.before != choice.build_id else ""
        typer.echo(
            f"all {len(done.moved)} workflows run on build {choice.build_id}{rest if done.before else ''}"
        )

    _run("rollout", config, act, level="error")


@app.command()
def market(config: Config = None) -> None:
    """Run the marketplace of this machine: the Vast REST API over its GPUs and CPU slots."""
    from run.roles.host_market import run_host_market  # noqa: PLC0415

    _run("market", config, run_host_market)


@app.command()
def panic(
    config: Config = None,
    endpoint: Annotated[str | None, typer.Option(help="Only this endpoint's instances.")] = None,
    deployment: Annotated[
        str | None, typer.Option(help="The deployment's identity, if Temporal does not answer.")
    ] = None,
    yes: Yes = False,
) -> None:
    """Stop every endpoint and destroy every instance of this deployment, with its disk. Asks first."""
    from market.ownership import DeploymentMarket  # noqa: PLC0415
    from run.commands.panic import CONFIRMATION, Panic, find_deployment, run_panic  # noqa: PLC0415
    from run.processes.temporal_server import temporal_target  # noqa: PLC0415
    from stoker.cli.output import Terminal  # noqa: PLC0415

    console = Terminal(highlight=False)
    done: list[Panic] = []

    async def act(settings: DeploymentSettings) -> None:
        keys = load_keys(settings.state_dir, generate=False, role="market", uses_vast=settings.uses_vast)
        target = temporal_target(settings.temporal)
        identity, client = await find_deployment(target, settings.state_dir, deployment, console)
        market = DeploymentMarket(settings.market_client(keys.market_key), identity)
        try:
            panic = run_panic(
                market, client, endpoint=endpoint, confirmed=_confirmation(yes, CONFIRMATION), console=console
            )
            done.append(await panic)
        finally:
            await market.close()

    _run("panic", config, act, level="error")
    for result in done:
        console.print(f"endpoints stopped: {', '.join(result.endpoints.names) or 'none'}")
        console.print(f"instances destroyed: {len(result.destroyed)}, left: {len(result.left)}")
        for fault in result.faults():
            sys.stderr.write(escape_text(f"stokerd: {fault}\n"))
        if result.faults():
            raise SystemExit(1)


@app.command()
def identity(
    config: Config = None,
    new: Annotated[bool, typer.Option("--new", help="Make this state folder a new deployment.")] = False,
    to: Annotated[
        str | None, typer.Option("--set", help="Make this state folder that deployment, moved here.")
    ] = None,
) -> None:
    """Print this deployment's identity, which is part of the label of each of its instances.

    --new and --set are for a copied state folder of `stokerd dev`.
    """
    from run.processes.temporal_server import PERSON_SECONDS_MAX, connect_to, temporal_target  # noqa: PLC0415
    from run.state_folder.identity import (  # noqa: PLC0415
        StoredIdentity,
        identity_of,
        new_identity,
        require_identity,
        store_identity,
    )
    from run.state_folder.lock import StateLock  # noqa: PLC0415

    async def act(settings: DeploymentSettings) -> None:
        if new or to is not None:
            if new and to is not None:
                raise CommandError("give either --new or --set")
            lock = StateLock(settings.state_dir)
            lock.acquire()
            try:
                deployment = new_identity() if to is None else require_identity(to, "--set")
                store_identity(settings.state_dir, StoredIdentity(deployment, ""))
            finally:
                lock.release()
            typer.echo(deployment)
            return
        target = temporal_target(settings.temporal)
        client = await connect_to(target, wait_seconds_max=PERSON_SECONDS_MAX)
        typer.echo(await identity_of(client))
        typer.echo(f"Temporal {target}", err=True)

    _run("identity", config, act, level="error")


@app.command()
def adopt(
    config: Config = None,
    origin: Annotated[
        str | None,
        typer.Option("--from", help="A deployment that no longer exists; else instances without one."),
    ] = None,
    yes: Yes = False,
) -> None:
    """Assign instances without a deployment, or of one that no longer exists, to this deployment. Asks first."""
    from market.ownership import DeploymentMarket  # noqa: PLC0415
    from run.commands.adopt import CONFIRMATION, run_adopt  # noqa: PLC0415
    from run.processes.temporal_server import PERSON_SECONDS_MAX, connect_to, temporal_target  # noqa: PLC0415
    from run.state_folder.identity import ensure_identity  # noqa: PLC0415
    from stoker.cli.output import Terminal  # noqa: PLC0415

    console = Terminal(highlight=False)

    async def act(settings: DeploymentSettings) -> None:
        keys = load_keys(settings.state_dir, generate=False, role="market", uses_vast=settings.uses_vast)
        target = temporal_target(settings.temporal)
        console.print(f"Temporal {target}", markup=False)
        client = await connect_to(target, wait_seconds_max=PERSON_SECONDS_MAX)
        deployment = await ensure_identity(client, settings.state_dir)
        market = DeploymentMarket(settings.market_client(keys.market_key), deployment)
        try:
            await run_adopt(
                market, client, origin=origin, confirmed=_confirmation(yes, CONFIRMATION), console=console
            )
        finally:
            await market.close()

    _run("adopt", config, act, level="error")


@app.command()
def key(config: Config = None) -> None:
    """Print the account key, for `export STOKER_API_KEY=$(stokerd key)`."""
    with _faults():
        settings = load_settings(config)
        typer.echo(load_account_key(settings.state_dir))


@app.command()
def doctor(
    config: Config = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Check keys, clocks, ports, Temporal, engine, marketplace, TLS and workers. Exit code 1 if a check failed."""
    from run.commands.doctor import run_doctor  # noqa: PLC0415

    configure_logs(process="doctor", level="critical")
    with _faults():
        asyncio.run(run_doctor(config, as_json=as_json))


@app.command()
def init(
    market: Annotated[
        MarketName, typer.Option(help="hosts: this machine; vast: the Vast.ai marketplace.")
    ] = "hosts",
    public_url: Annotated[
        str | None, typer.Option(help="Address at which rented machines reach the engine; required for vast.")
    ] = None,
    config: Annotated[Path, typer.Option("--config", "-c", help="The file to write.")] = Path(
        "temporal-dev.yaml"
    ),
) -> None:
    """Write the settings file of a new deployment; the other commands read it."""
    from run.commands.init import write_settings  # noqa: PLC0415

    with _faults():
        for line in write_settings(config, market, public_url=public_url):
            typer.echo(line)


@app.command()
def notify(
    config: Config = None,
    channel: Annotated[str | None, typer.Option(help="Only the channel of this name.")] = None,
) -> None:
    """Send a test notice through every channel of the settings, from this machine, and show each answer."""
    from run.commands.notify import send_test  # noqa: PLC0415

    failed: list[str] = []

    async def act(settings: DeploymentSettings) -> None:
        failed.extend(await send_test(settings.notify, only=channel, say=typer.echo))

    _run("notify", config, act, level="error")
    if failed:
        raise SystemExit(1)


@app.command()
def simulate(
    trace: Annotated[
        Path, typer.Argument(help="CSV (t_s,input_tokens,output_tokens or t_s,work) or a request log.")
    ],
    endpoint: Annotated[Path | None, typer.Option(help="An endpoint config, YAML or JSON.")] = None,
    only: Annotated[
        str | None, typer.Option(help="Use only the requests of this endpoint in a request log.")
    ] = None,
    perf: Annotated[float | None, typer.Option(help="Throughput of one worker, load/s.")] = None,
    price: Annotated[float, typer.Option(help="Price of a running worker, $/h.")] = 0.42,
    queue: Annotated[
        float | None, typer.Option(help="Suggest a config with at most this queue time, s.")
    ] = None,
    budget: Annotated[
        float | None, typer.Option(help="Suggest a config with at most this cost, $/h.")
    ] = None,
    frontier: Annotated[bool, typer.Option("--frontier", help="Show cost against queue time.")] = False,
    pictures: Annotated[Path | None, typer.Option(help="Draw charts into this folder.")] = None,
    cold_start: Annotated[
        bool, typer.Option("--cold-start", help="Start without workers, and count the first boots.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Seed of all random numbers.")] = 0,
) -> None:
    """Replay a trace through the policy: queue time, cost, and a suggested config."""
    from run.commands.simulate import run_simulate  # noqa: PLC0415 - each role loads only what it needs
    from stoker.cli.output import Terminal  # noqa: PLC0415

    with _faults():
        run_simulate(
            trace,
            endpoint,
            only=only,
            perf=perf,
            dollars_per_hour=price,
            queue_seconds=queue,
            budget_dollars_per_hour=budget,
            frontier=frontier,
            pictures=pictures,
            cold_start=cold_start,
            seed=seed,
            console=Terminal(highlight=False),
        )


def _confirmation(yes: bool, word: str) -> Callable[[str], bool]:
    def confirmed(question: str) -> bool:
        if yes:
            return True
        if sys.stdin is None or not sys.stdin.isatty():
            raise CommandError("cannot ask for confirmation without a terminal; give --yes", exit_code=1)
        sys.stdout.write(question)
        sys.stdout.flush()
        return sys.stdin.readline().strip() == word

    return confirmed


def _run(
    role: str,
    config: Path | None,
    main: Callable[[DeploymentSettings], Coroutine[Any, Any, None]],
    *,
    level: str = "info",
) -> None:
    os.umask(UMASK)
    raise_files_max(1_048_576)
    configure_logs(process=role, level=level)
    with _faults():
        settings = load_settings(config)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main(settings))


_DISK_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS})
_LISTEN_ERRORS = frozenset({errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES})


class _faults:  # noqa: N801 - reads as a statement: with _faults():
    """Prints an error as one sentence and exits with its code."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, fault: BaseException | None, trace: object) -> None:
        if isinstance(fault, CommandError):
            sys.stderr.write(escape_text(f"stokerd: {fault}\n"))
            raise SystemExit(fault.exit_code)
        if isinstance(fault, BrokenPipeError) and is_reader_closed():
            drop_output()
            raise SystemExit(128 + signal.SIGPIPE)
        if isinstance(fault, OSError) and (sentence := _advice(fault)) is not None:
            sys.stderr.write(escape_text(f"stokerd: {sentence}\n"))
            raise SystemExit(3)
        if isinstance(fault, KeyboardInterrupt):
            raise SystemExit(130)


def _advice(fault: OSError) -> str | None:
    """The system error with advice; None if it is not a known kind."""
    reason = fault.strerror or str(fault)
    if fault.filename is not None:
        return f"cannot use {fault.filename}: {reason}; give this user access to it, or give another path"
    if fault.errno in _DISK_ERRORS:
        return f"cannot write: {reason}; free some space for the state folder and the output"
    if isinstance(fault, socket.gaierror):
        return f"cannot listen: {reason}; set engine.host to an address of this machine"
    if fault.errno in _LISTEN_ERRORS:
        return f"cannot listen: {reason}; free the port or choose another"
    return None


def main() -> None:
    """The entry point of the program."""
    open_standard_files()
    try:
        with _faults():
            try:
                app()
            finally:
                if sys.stdout is not None:
                    sys.stdout.flush()
    except SystemExit:
        drop_output()
        raise
