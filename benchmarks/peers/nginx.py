"""nginx of the distribution as a reverse proxy: one worker process, keep-alive to the model, no buffering of streams."""

import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

PROGRAM = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
_READY_SECONDS = 20
_CONFIG = """
daemon off;
master_process off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  keepalive_requests 1000000000;
  upstream model {{ server 127.0.0.1:{upstream}; keepalive 1024; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=1024;
    location / {{
      proxy_pass http://model;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
      proxy_read_timeout 600s;
    }}
  }}
}}
"""


@contextlib.contextmanager
def nginx(folder: Path, upstream: int) -> Iterator[tuple[int, int]]:
    """Port and process id of nginx before the server at `upstream`."""
    if PROGRAM is None:
        raise SystemExit("expected nginx, a peer of this benchmark; install it (apt-get install nginx-light)")
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
    folder = folder / "nginx"
    folder.mkdir()
    config = folder / "nginx.conf"
    config.write_text(_CONFIG.format(folder=folder, port=port, upstream=upstream))
    process = subprocess.Popen([PROGRAM, "-p", folder, "-c", config], stderr=subprocess.DEVNULL)
    try:
        until_listening(port, process)
        yield port, process.pid
    finally:
        process.terminate()
        process.wait()


def until_listening(port: int, process: subprocess.Popen[bytes], seconds_max: float = _READY_SECONDS) -> None:
    """Wait until the process listens on the port."""
    deadline = time.monotonic() + seconds_max
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        if process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"{process.args!r} does not listen on port {port}")
        time.sleep(0.05)
