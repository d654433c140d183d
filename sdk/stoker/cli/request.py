"""`stoker request`: send one request, print its answer and its timing."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from stoker.cli.context import PATIENT_SECONDS_MAX, AsJson, EndpointArgument, run
from stoker.cli.output import fail, print_json, print_notice, write_model_text
from stoker.client import Serverless
from stoker.errors import Invalid
from stoker.requests.answer import Answer
from stoker.requests.progress import Wait
from stoker_wire.parsing.strict_json import parse_json
from stoker_wire.route import DEFAULT_COST
from stoker_wire.tracing.start import TracingUnavailable, start_tracing


def request(
    context: typer.Context,
    endpoint: EndpointArgument,
    route: Annotated[str, typer.Argument(help="The worker's handler, e.g. /v1/completions.")],
    payload: Annotated[str, typer.Argument(help="JSON, @file with JSON, or - for standard input.")] = "{}",
    cost: Annotated[
        float, typer.Option(min=0, help="The work in it, in the endpoint's units.")
    ] = DEFAULT_COST,
    timeout: Annotated[float, typer.Option(min=0.001, help="Seconds for everything.")] = 600.0,
    affinity: Annotated[
        str, typer.Option(help="Equal for requests with a common prefix; one worker serves them.")
    ] = "",
    stream: Annotated[
        bool, typer.Option("--stream", help="Print the events of a stream as they come.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the body to this file.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Send a request; the answer goes to standard output, its timing to standard error."""
    _start_tracing()
    body = _payload(payload)
    if stream and output is not None:
        raise typer.BadParameter("--stream and --output do not go together")
    if output is not None:
        _check_writable(output)

    async def whole(client: Serverless) -> Answer:
        handle = await client.get_endpoint(endpoint)
        return await handle.request(route, body, cost=cost, affinity=affinity, on_wait=_print_wait)

    async def streamed(client: Serverless) -> None:
        handle = await client.get_endpoint(endpoint)
        async with handle.stream(route, body, cost=cost, affinity=affinity, on_wait=_print_wait) as events:
            async for event in events:
                line = json.dumps({"event": event.event, "data": event.data}) if as_json else event.data
                write_model_text(line + "\n")
            print_notice(f"worker {events.worker_id}: {events.timing}")

    if stream:
        run(context, streamed, timeout_seconds=timeout, outage_seconds_max=PATIENT_SECONDS_MAX)
        return
    answer = run(context, whole, timeout_seconds=timeout, outage_seconds_max=PATIENT_SECONDS_MAX)
    if output is not None:
        _write(output, answer.content)
    if as_json:
        print_json(_describe(answer, with_body=output is None))
        return
    if output is None:
        _print_body(answer)
    tries = f" after {answer.attempts} attempts" if answer.attempts > 1 else ""
    print_notice(f"worker {answer.worker_id}{tries}: {answer.timing}")


def _start_tracing() -> None:
    """Trace the request if the OTEL_… variables ask for it. At the end of the program its spans are exported."""
    try:
        tracing = start_tracing("stoker", package="stoker")
    except TracingUnavailable as fault:
        fail(Invalid(str(fault)))
    if tracing is not None:
        tracing.use_for_program()


def _payload(text: str) -> Any:
    try:
        if text == "-":
            text = sys.stdin.read()
        elif text.startswith("@"):
            text = Path(text[1:]).read_text(encoding="utf-8")
        return parse_json(text)
    except OSError as fault:
        raise typer.BadParameter(f"cannot read the payload: {fault}", param_hint="PAYLOAD") from None
    except ValueError as fault:
        raise typer.BadParameter(f"the payload is not JSON: {fault}", param_hint="PAYLOAD") from None


def _check_writable(path: Path) -> None:
    """Check the output file before the request, because the answer would be lost. The file keeps its content."""
    try:
        absent = not os.path.lexists(path)
        if absent or path.is_file() or path.is_dir():  # not a pipe: its reader would see it open and close
            path.open("ab").close()
        if absent:
            path.unlink()
    except OSError as fault:
        raise typer.BadParameter(f"cannot write the body: {fault}", param_hint="--output") from None


def _write(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as fault:
        raise typer.BadParameter(f"cannot write the body: {fault}", param_hint="--output") from None


def _print_wait(wait: Wait) -> None:
    eta = "" if wait.eta_s is None else f", about {wait.eta_s:.0f} s"
    print_notice(f"waiting {wait.waited_s:.0f} s: {wait.status}{eta}")


def _describe(answer: Answer, *, with_body: bool) -> dict[str, Any]:
    described: dict[str, Any] = {
        "status": answer.status,
        "timing": asdict(answer.timing),
        "worker_id": answer.worker_id,
        "worker_url": answer.worker_url,
        "attempts": answer.attempts,
        "request_idx": answer.request_idx,
    }
    if with_body:
        body = answer.response
        described["response"] = body.decode("utf-8", "replace") if isinstance(body, bytes) else body
    return described


def _print_body(answer: Answer) -> None:
    if answer.content_type == "application/json":
        print_json(answer.json())
    elif sys.stdout.isatty() and not answer.content_type.startswith("text/"):
        print_notice(
            f"{len(answer.content)} bytes of {answer.content_type or 'unknown type'}; use --output FILE"
        )
    elif sys.stdout.isatty():
        write_model_text(answer.text)
    else:
        sys.stdout.buffer.write(answer.content)
        sys.stdout.buffer.flush()
