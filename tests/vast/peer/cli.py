"""The official CLI, command after command: each line of input is a list of words, each line of output a result.

Every command runs in its own fork, as from a shell, without importing the package again.
"""

import json
import os
import sys
import tempfile
import traceback

import vastai.cli.commands.benchmarks
import vastai.cli.commands.endpoints
import vastai.cli.commands.instances
import vastai.cli.commands.offers  # noqa: F401 - imported before the forks
from vastai.cli.main import main


def run(words):
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = os.fork()
        if child == 0:
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            sys.argv = ["vastai", *words]
            code = 0
            try:
                main()
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
            except BaseException:  # noqa: BLE001 - what a shell would show
                traceback.print_exc()
                code = 70
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        out.seek(0)
        err.seek(0)
        return {"out": out.read().decode(), "err": err.read().decode(), "code": code}


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(run(json.loads(line))), flush=True)
