"""A hub for models on the loopback address that answers as Hugging Face's does, because tests reach no other one.

A repository is served from a folder. The name tells what the hub thinks of the caller: `gated/…` asks for a licence,
`denied/…` knows no such token; any other name that is not served does not exist.
"""

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "a" * 40


class _Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    repositories: Mapping[str, Path]
    asked: list[str]

    def do_HEAD(self):
        self._answer(with_body=False)

    def do_GET(self):
        self.asked.append(self.path)
        self._answer(with_body=True)

    def _answer(self, *, with_body):
        path = unquote(urlsplit(self.path).path).strip("/")
        repository = "/".join(path.removeprefix("api/models/").split("/")[:2])
        folder = self.repositories.get(repository)
        if repository.startswith("denied/"):
            return self._refuse(401, message="Invalid credentials in Authorization header")
        if repository.startswith("gated/"):
            return self._refuse(
                401, "GatedRepo", f"Access to model {repository} is restricted. You must have access to it and be"
                " authenticated to access it. Please log in.",
            )  # fmt: skip
        if folder is None:
            return self._refuse(401, "RepoNotFound", "Repository not found")
        files = {each.name: each.stat().st_size for each in sorted(folder.iterdir()) if each.is_file()}
        if path.startswith("api/models/") and "/tree/" in path:
            body = json.dumps(
                [{"type": "file", "path": name, "size": size, "oid": name} for name, size in files.items()]
            ).encode()
        elif path.startswith("api/models/"):
            siblings = [{"rfilename": name, "size": size} for name, size in files.items()]
            body = json.dumps(
                {"id": repository, "sha": COMMIT, "gated": False, "siblings": siblings}
            ).encode()
        else:
            name = path.removeprefix(repository).strip("/").split("/", 2)[-1]
            if name not in files:
                return self._refuse(404, "EntryNotFound", "Entry not found")
            body = (folder / name).read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if with_body:
            self.wfile.write(body)
        return None

    def _refuse(self, status, code="", message=""):
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", message)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@contextmanager
def serving(repositories: Mapping[str, Path]) -> Iterator[tuple[str, list[str]]]:
    """The hub's address, and the paths that were read."""
    asked: list[str] = []
    handler = type("Answers", (_Answers,), {"repositories": repositories, "asked": asked})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
