"""A local server that answers as the Hugging Face hub does for one gated repository, and for unknown ones."""

from aiohttp import web

GATED = "acme/gated-model"
_COMMIT = "0123456789abcdef0123456789abcdef01234567"
_FILE = "model.safetensors"


def app() -> web.Application:
    """The routes that `huggingface_hub.snapshot_download` calls."""
    made = web.Application()
    made.router.add_get("/api/models/{owner}/{name}/revision/{revision}", _describe)
    made.router.add_get("/api/models/{owner}/{name}/tree/{revision}", _list)
    made.router.add_get("/{owner}/{name}/resolve/{revision}/{file:.*}", _download)
    return made


def _is_known(request: web.Request) -> bool:
    return "{owner}/{name}".format(**request.match_info) == GATED


def _refusal(message: str, code: str) -> web.Response:
    """401 with the hub's headers; it answers an unknown name in the same way, so that private names are not revealed."""
    headers = {
        "X-Error-Code": code,
        "X-Error-Message": message,
        "WWW-Authenticate": 'Bearer realm="Authentication required", charset="UTF-8"',
    }
    return web.Response(status=401, text=message, headers=headers)


def _unknown() -> web.Response:
    return _refusal("Invalid username or password.", "RepoNotFound")


async def _describe(request: web.Request) -> web.Response:
    if not _is_known(request):
        return _unknown()
    files = [{"rfilename": _FILE, "size": 4096}]
    about = {
        "id": GATED,
        "modelId": GATED,
        "sha": _COMMIT,
        "private": False,
        "gated": "manual",
        "siblings": files,
    }
    return web.json_response(about)


async def _list(request: web.Request) -> web.Response:
    if not _is_known(request):
        return _unknown()
    return web.json_response([{"type": "file", "oid": "a1", "size": 4096, "path": _FILE}])


async def _download(request: web.Request) -> web.Response:
    if not _is_known(request):
        return _unknown()
    return _refusal(
        f"Access to model {GATED} is restricted. You must have access to it and be authenticated to access it."
        " Please log in.",
        "GatedRepo",
    )
