"""`make audit` fails on known vulnerabilities, and prints one line if the database is unreachable."""

import http.server
import importlib.util
import json
import threading
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_spec = importlib.util.spec_from_file_location("auditing", ROOT / "requirements" / "audit.py")
auditing = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(auditing)
CLEAN, FLAWED = (
    "good==1.0 \\\n    --hash=sha256:00\n",
    "Bad.Pkg==2.1 ; sys_platform != 'win32' \\\n    --hash=sha256:00\n",
)


class Database:
    """An advisory database on a real socket, with one vulnerability."""

    def __init__(self) -> None:
        self.asked = []
        self.broken = b""
        database = self

        class Answering(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                queries = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["queries"]
                database.asked += [(one["package"]["name"], one["version"]) for one in queries]
                results = [
                    {"vulns": [{"id": "GHSA-1"}, {"id": "PYSEC-2"}]}
                    if one["package"]["name"] == "bad.pkg"
                    else {}
                    for one in queries
                ]
                body = database.broken or json.dumps({"results": results}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = http.server.HTTPServer(("127.0.0.1", 0), Answering)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1/querybatch"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self.thread.start()

    def close(self):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def database():
    made = Database()
    yield made
    made.close()


@pytest.fixture
def audit(tmp_path, capsys):
    """Runs the audit on a lock with this text; returns exit status, stdout and stderr."""

    def run(text: str, *options: str) -> tuple[int, str, str]:
        (tmp_path / "lock.txt").write_text(text)
        code = auditing.main([str(tmp_path / "lock.txt"), *options])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def test_a_known_vulnerability_fails_and_names_the_package(audit, database):
    code, said, _ = audit(CLEAN + FLAWED, "--url", database.url)
    assert code == 1
    assert "bad.pkg 2.1 has known vulnerabilities: GHSA-1, PYSEC-2; raise it" in said
    assert database.asked == [("good", "1.0"), ("bad.pkg", "2.1")]


def test_no_known_vulnerability_passes(audit, database):
    assert audit(CLEAN, "--url", database.url) == (0, "audit: 1 packages, 0 with known vulnerabilities\n", "")


@pytest.mark.parametrize(
    "broken", [b"<html>", b"[]", b'{"results": []}', b'{"results": [1]}', b'{"results": null}']
)
def test_an_unreadable_database_is_reported_and_does_not_fail(audit, database, broken):
    database.broken = broken
    code, said, errors = audit(CLEAN, "--url", database.url)
    assert (code, said) == (0, "")
    assert errors.startswith("audit: not done")
    assert errors.count("\n") == 1


def test_without_a_network_it_prints_one_line(audit):
    unreachable = ("--url", "http://127.0.0.1:9/")
    code, said, errors = audit(CLEAN + FLAWED, *unreachable)
    assert (code, said) == (0, "")
    assert "not done, the advisory database cannot be reached" in errors
    assert "2 packages" in errors
    assert errors.count("\n") == 1
    assert audit(CLEAN, *unreachable, "--required")[0] == 1
