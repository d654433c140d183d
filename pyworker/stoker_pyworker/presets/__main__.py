"""Runs a preset: `python -m stoker_pyworker.presets NAME [options] [-- arguments of the server]`."""

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import replace

import msgspec

from stoker_pyworker import presets
from stoker_pyworker.config import ConfigError, WorkerConfig
from stoker_pyworker.presets.base.preset import worker_config
from stoker_pyworker.presets.base.settings import PresetSettings

_OPTIONS = {
    "--model": ("MODEL_NAME", "repository, folder, file or tag of the model"),
    "--alias": ("MODEL_ALIAS", "name under which clients ask for the model"),
    "--context": ("MODEL_CONTEXT", "context length in tokens"),
    "--parallel": ("MODEL_PARALLEL", "requests at the same time"),
    "--gpus": ("MODEL_GPUS", "GPUs for one model"),
    "--port": ("MODEL_PORT", "port of the model server on 127.0.0.1"),
    "--command": ("MODEL_COMMAND", "program that replaces the preset's"),
    "--cache": ("MODEL_CACHE", "folder for weights"),
    "--perf": ("MODEL_PERF", "workload per second to report before the benchmark; 0: benchmark first"),
    "--startup-seconds": ("MODEL_STARTUP_SECONDS", "deadline of the start"),
    "--log": ("MODEL_LOG", "log file of the server"),
    "--health": ("MODEL_HEALTH_ENDPOINT", "path that answers 200 while the server is healthy"),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until drained. Exit status 2: a setting is missing or invalid."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["serve"]:
        given = given[1:]
    own, separator, rest = _split(given)
    options = _parser().parse_args(own)
    variables = dict(os.environ)
    for name, (variable, _) in _OPTIONS.items():
        value = getattr(options, name[2:].replace("-", "_"))
        if value is not None:
            variables[variable] = value
    if options.route:
        variables["MODEL_ROUTES"] = ",".join(options.route)
    try:
        config = build(
            options.preset or variables.get("STOKER_PRESET", ""), variables, rest if separator else None
        )
    except ConfigError as fault:
        sys.stderr.write(f"stoker: {fault}\n")
        sys.exit(2)
    if options.dry_run:
        sys.stdout.buffer.write(
            msgspec.json.format(msgspec.json.encode(_described(config)), indent=2) + b"\n"
        )
        return
    from stoker_pyworker.worker import Worker  # noqa: PLC0415 - errors and help come without the server's imports

    Worker(config).run()


def build(name: str, variables: dict[str, str], extra: Sequence[str] | None = None) -> WorkerConfig:
    """The worker of the preset with these variables; `extra` replaces MODEL_ARGS.

    Raises:
        ConfigError: the name is unknown, or a setting missing or invalid.
    """
    try:
        preset = presets.load(name)
    except KeyError:
        known = ", ".join(presets.NAMES)
        raise ConfigError(f"STOKER_PRESET: expected one of {known}; received {name!r}") from None
    settings = PresetSettings.read(variables, vllm_names=name == "vllm")
    if extra is not None:
        settings = replace(settings, args=tuple(extra))
    return worker_config(preset, settings)


def _split(words: list[str]) -> tuple[list[str], bool, list[str]]:
    if "--" not in words:
        return words, False, []
    at = words.index("--")
    return words[:at], True, words[at + 1 :]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m stoker_pyworker.presets",
        description="Starts a model server and serves it as a worker. Every option is also a variable.",
        epilog="Arguments after -- go to the model server.",
        allow_abbrev=False,
    )
    parser.add_argument("preset", nargs="?", help=f"one of {', '.join(presets.NAMES)} (STOKER_PRESET)")
    for name, (variable, meaning) in _OPTIONS.items():
        parser.add_argument(name, help=f"{meaning} ({variable})")
    parser.add_argument(
        "--route", action="append", help="a further path of the server, repeated (MODEL_ROUTES)"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print the command and the routes, start nothing"
    )
    return parser


def _described(config: WorkerConfig) -> dict[str, object]:
    server = config.server
    assert server is not None, "every preset has a server"
    return {
        "command": server.command,
        "env": server.env,
        "health": config.model_healthcheck_url,
        "routes": {handler.route: _rule(handler.workload_calculator) for handler in config.handlers},
        "perf": server.initial_perf,
        "log": config.model_log_file,
    }


def _rule(rule: object) -> str:
    return str(getattr(rule, "kind", "cost of the ticket"))


if __name__ == "__main__":
    main()
