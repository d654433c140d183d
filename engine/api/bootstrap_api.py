"""`GET <launch's own path>/worker/…`: the worker for a machine that cannot get it from a package index.

The path contains the launch's sealed key (`activities.signing`), so it is unguessable and bound to one launch.
"""

import hashlib
from pathlib import Path

from aiohttp import web

from engine.api.worker_api import LAUNCH_PATH, no_such_path
from engine.engine import Engine
from engine.openapi.declarations import text
from stoker_wire.errors.problem import Problem
from stoker_wire.http.openapi import Parameter, handles

_SCRIPT = Path(__file__).with_name("bootstrap.sh").read_text(encoding="utf-8")
_FILE = Parameter(name="file", about="A file that the script names", where="path")


class BootstrapApi:
    """Serves the script and the files that it installs, each with its SHA-256 in the script."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @handles(
        f"GET {LAUNCH_PATH}/worker/bootstrap.sh",
        tag="workers",
        replies=text("text/x-shellscript", "The script"),
        refuses=(404,),
    )
    async def script(self, request: web.Request) -> web.Response:
        """The script that installs and runs the worker: `curl -fsSL "$REPORT_ADDR/worker/bootstrap.sh" | bash -s -- PRESET`."""
        self._check(request)
        package = self._engine.settings.worker_package
        if package is None:
            raise Problem(
                404, "no_worker_package", "this engine has no worker to install; bring it in the image"
            )
        lines = "\n".join(
            f"{hashlib.sha256(data).hexdigest()}  {name}" for name, data in sorted(package.files.items())
        )
        body = _SCRIPT.replace("@VERSION@", package.version).replace("@FILES@", lines)
        return web.Response(text=body, content_type="text/x-shellscript", headers=_NOT_STORED)

    @handles(
        f"GET {LAUNCH_PATH}/worker/{{file}}",
        tag="workers",
        parameters=(_FILE,),
        replies=text("application/octet-stream", "The file"),
        refuses=(404,),
    )
    async def file(self, request: web.Request) -> web.Response:
        """One of the files that the script names."""
        self._check(request)
        package = self._engine.settings.worker_package
        data = package.files.get(request.match_info["file"]) if package is not None else None
        if data is None:
            raise no_such_path()
        return web.Response(body=data, content_type="application/octet-stream", headers=_NOT_STORED)

    def _check(self, request: web.Request) -> None:
        launch_id, sealed = request.match_info["launch"], request.match_info["sealed"]
        if self._engine.ticket_issuer.public_key_of(launch_id, sealed) is None:
            raise no_such_path()


_NOT_STORED = {"Cache-Control": "no-store"}
