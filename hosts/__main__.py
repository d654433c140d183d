"""`python -m hosts --settings file.json [--address A] [--port N]`: runs the marketplace alone and prints its URL."""

import argparse
import asyncio
import sys
from pathlib import Path

import structlog
from pydantic import ValidationError

from hosts.catalog.store import StateDamaged, StateInUse
from hosts.host import UnsupportedMachine
from hosts.serve import serve
from hosts.settings import HostMarketSettings
from stoker_wire.errors.problem import describe


def main(arguments: list[str] | None = None) -> int:
    """Return the exit status: 0 after SIGTERM or SIGINT, 2 if it cannot start."""
    parser = argparse.ArgumentParser(prog="hosts", description="A marketplace of this one machine.")
    parser.add_argument("--settings", type=Path, required=True, help="JSON file of HostMarketSettings")
    parser.add_argument("--address", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0: any free port")
    chosen = parser.parse_args(arguments)
    try:
        settings = HostMarketSettings.model_validate_json(chosen.settings.read_bytes())
        # Only the URL goes to stdout, so that a parent process can read it.
        structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
        asyncio.run(serve(settings, address=chosen.address, port=chosen.port, ready=_announce))
    except ValidationError as error:
        return _fail(f"{chosen.settings}: {describe(error)}")
    except (OSError, StateDamaged, StateInUse, UnsupportedMachine) as error:
        return _fail(str(error))
    return 0


def _announce(url: str) -> None:
    sys.stdout.write(f"{url}\n")
    sys.stdout.flush()


def _fail(sentence: str) -> int:
    sys.stderr.write(f"{sentence}\n")
    return 2


if __name__ == "__main__":
    sys.exit(main())
