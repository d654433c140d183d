"""The command `stoker up`."""

from __future__ import annotations

import os
import re
import sys
from typing import Annotated

import typer

from stoker.cli.context import PATIENT_SECONDS_MAX, Globals, Yes, complete_from, run
from stoker.cli.output import print_line, print_notice
from stoker.client import Serverless
from stoker.errors import Invalid, StokerError
from stoker.preflight.sources import HUB, Model, ModelUnavailable, local_path, read_model
from stoker.settings import KEY_VARIABLE, LOCAL_FILE
from stoker.up.apply import ENDPOINT_DEFAULTS, Applied, apply_plan
from stoker.up.plan import Plan, make_plan
from stoker.up.progress import last_decision_at, wait_until_loaded
from stoker.up.request import UpRequest, check_request, find_preset, read_variables
from stoker.up.usage import usage_lines
from stoker_wire.presets import PRESETS

_NOT_NAME = re.compile(r"[^A-Za-z0-9_-]+")


def up(
    context: typer.Context,
    preset: Annotated[
        str,
        typer.Argument(
            help="E.g. vllm, llama-server; see docs/reference/presets.md.",
            autocompletion=complete_from(*PRESETS),
        ),
    ],
    server_args: Annotated[
        list[str] | None,
        typer.Argument(metavar="[-- SERVER_ARGS]...", help="Arguments for the model server."),
    ] = None,
    model: Annotated[
        str, typer.Option("--model", "-m", help="Hugging Face repository, folder, or GGUF file.")
    ] = "",
    name: Annotated[str | None, typer.Option("--name", "-n", help="Name of the endpoint.")] = None,
    search: Annotated[str, typer.Option(help="Eligible machines, e.g. 'gpu_name=RTX_4090'.")] = "",
    gpus: Annotated[
        int | None, typer.Option(min=1, max=64, help="GPUs of one worker (tensor parallelism).")
    ] = None,
    cpu: Annotated[bool, typer.Option("--cpu", help="Run on machines without a GPU.")] = False,
    gpu_ram: Annotated[
        float | None, typer.Option(min=0, help="VRAM per GPU, GB; the model is not read then.")
    ] = None,
    context_tokens: Annotated[
        int | None, typer.Option("--context", min=1, help="Context length, tokens.")
    ] = None,
    parallel: Annotated[
        int | None, typer.Option(min=1, help="Requests that the server runs at the same time.")
    ] = None,
    disk: Annotated[float | None, typer.Option(min=1, help="Disk of an instance, GB.")] = None,
    cache: Annotated[
        str,
        typer.Option(
            help="Keep the weights for later workers: a name on your own machines; Vast.ai: volume ID[:path]."
        ),
    ] = "",
    max_workers: Annotated[int | None, typer.Option(min=1, help="Most workers at the same time (2).")] = None,
    min_workers: Annotated[
        int | None, typer.Option(min=0, help="Workers that keep the model on disk (1).")
    ] = None,
    budget: Annotated[float | None, typer.Option(min=0, help="Hard limit on running workers, $/h.")] = None,
    idle_seconds: Annotated[
        float | None,
        typer.Option("--inactivity-timeout", help="Idle seconds before zero running workers (600)."),
    ] = None,
    image: Annotated[str, typer.Option(help="Container image, instead of the preset's.")] = "",
    command: Annotated[str, typer.Option(help="Program of the model server, instead of the preset's.")] = "",
    env: Annotated[
        list[str] | None, typer.Option("--env", "-e", help="NAME=value for the worker; repeatable.")
    ] = None,
    secret: Annotated[
        list[str] | None,
        typer.Option(help="Pass the deployment's STOKER_SECRET_<NAME> as <NAME>; repeatable."),
    ] = None,
    wait_seconds: Annotated[
        float, typer.Option("--wait", min=0, help="How long to wait for a worker, s.")
    ] = 3600.0,
    yes: Yes = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and the price only.")] = False,
) -> None:
    """Serve a model: check its memory, state the price, ask, rent, wait, and print how to call it. Repeatable."""
    limits = {
        "max_workers": max_workers,
        "min_workers": min_workers,
        "dollars_per_hour_max": budget,
        "inactivity_timeout": idle_seconds,
    }
    parameters = {field: value for field, value in limits.items() if value is not None}

    async def plan_it(client: Serverless) -> Plan:
        known = find_preset(preset)
        variables = read_variables(env or [])
        chosen = _model_name(known.model, model)
        request = UpRequest(
            preset=known,
            endpoint=name or _endpoint_name(known.name, model),
            model=chosen,
            context=context_tokens,
            parallel=parallel,
            gpus=gpus,
            cpu_only=cpu,
            gpu_ram_gb=gpu_ram,
            search=search,
            command=command,
            image=image,
            server_args=tuple(server_args or ()),
            variables=variables,
            secrets=tuple(secret or ()),
            disk_gb=disk,
            cache=cache,
        )
        check_request(request)
        read, notes = await _read(request)
        return await make_plan(request, read, client.marketplace.offers, notes)

    async def apply_it(client: Serverless) -> tuple[float, Applied]:
        since = await last_decision_at(client, plan.request.endpoint)
        return since, await apply_plan(client, plan, parameters)

    async def wait(client: Serverless) -> str:
        return await wait_until_loaded(
            client, applied.endpoint.id, since=since, seconds_max=wait_seconds, say=_say
        )

    plan = run(context, plan_it)
    for line in plan.lines(int(parameters.get("max_workers", ENDPOINT_DEFAULTS["max_workers"]))):
        print_line(line)
    if dry_run:
        return
    _confirm(plan, yes)
    since, applied = run(context, apply_it)
    for action in applied.actions or ("everything is as asked already",):
        print_line(action)
    fault = run(context, wait, timeout_seconds=wait_seconds + 60, outage_seconds_max=PATIENT_SECONDS_MAX)
    if fault:
        endpoint = applied.endpoint.endpoint_name
        print_notice(
            f"stoker: {fault.rstrip('.')}. The endpoint goes on: correct the arguments and run the command again, see stoker watch "
            f"{endpoint}, or stop it: stoker endpoints delete {endpoint}"
        )
        raise typer.Exit(1)
    print_line("")
    for line in usage_lines(
        plan.request.preset,
        engine_url=_engine_url(context),
        endpoint=applied.endpoint.endpoint_name,
        model=plan.request.served_model,
        routes=plan.request.added_routes,
        key=_key_source(),
    ):
        print_line(line)


def _model_name(kind: str, model: str) -> str:
    """The model as the worker gets it: a local path is made absolute. Raises Invalid."""
    if kind == "none":
        return model
    if not model:
        raise Invalid(
            "--model is required for this preset: a Hugging Face repository, a folder, or a GGUF file"
        )
    path = local_path(model) if kind != "ollama" else None
    return str(path) if path is not None else model


async def _read(request: UpRequest) -> tuple[Model | None, tuple[str, ...]]:
    """The model and notes about what could not be checked."""
    if not request.model or request.preset.model in {"none", "ollama"} or request.gpu_ram_gb is not None:
        return None, ()
    token = os.environ.get("HF_TOKEN")
    try:
        found = await read_model(
            request.model, is_gguf=request.is_gguf, token=token, hub=os.environ.get("HF_ENDPOINT") or HUB
        )
    except ModelUnavailable as fault:
        raise Invalid(
            f"the model's memory cannot be checked: {fault}. Give --gpu-ram to go on without the check"
        ) from None
    if found.gated and "HF_TOKEN" not in request.secrets:
        return found, (
            "the repository is gated: start the deployment with STOKER_SECRET_HF_TOKEN and give --secret HF_TOKEN",
        )
    return found, ()


def _endpoint_name(preset: str, model: str) -> str:
    """A name from the model: `meta-llama/Llama-3.1-8B-Instruct` → `Llama-3-1-8B-Instruct`."""
    last = model.rstrip("/").rpartition("/")[2].partition(":")[0].removesuffix(".gguf")
    return _NOT_NAME.sub("-", last).strip("-")[:60] or preset


def _confirm(plan: Plan, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        print_notice(
            "stoker: cannot ask without a terminal; give --yes to rent, or --dry-run for the plan alone"
        )
        raise typer.Exit(2)
    typer.confirm(f"Serve {plan.request.endpoint} at this price?", abort=True, err=True)


def _say(seconds: float, line: str) -> None:
    print_line(f"{seconds:6.0f} s  {line}")
    sys.stdout.flush()


def _key_source() -> str:
    """What sets STOKER_API_KEY in this shell; empty if it is set."""
    if os.environ.get(KEY_VARIABLE):
        return ""
    return "$(stokerd key)" if LOCAL_FILE.exists() else "…"


def _engine_url(context: typer.Context) -> str:
    given = context.find_object(Globals) or Globals()
    try:
        return given.client().url
    except StokerError:
        return ""
