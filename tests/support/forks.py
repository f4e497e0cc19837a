"""Start Alembic in many processes at the same moment: forks.py NUMBER ARGUMENT...

Run with the workspace's Python. The libraries are imported once, before the processes part, so that
two cores can bring 32 of them to the database together. Prints NUL, exit code and output of each.
"""

import gc
import os
import sys
import tempfile
from contextlib import ExitStack

import alembic.config
import psycopg  # noqa: F401
import sqlalchemy.dialects.postgresql.psycopg
import sqlalchemy.orm  # noqa: F401


def child(output: int, start: int) -> None:
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.read(start, 1)  # ends when the parent closes its side
    code = 0
    try:
        alembic.config.main(sys.argv[2:])
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code & 255)


gc.freeze()  # what is shared stays shared
start, go = os.pipe()
children = []
with ExitStack() as files:
    for _ in range(int(sys.argv[1])):
        output = files.enter_context(tempfile.TemporaryFile())
        if (pid := os.fork()) == 0:
            os.close(go)
            child(output.fileno(), start)
        children.append((pid, output))
    os.close(go)
    for pid, output in children:
        _, status = os.waitpid(pid, 0)
        output.seek(0)
        sys.stdout.write(f"\0{os.waitstatus_to_exitcode(status)}\n{output.read().decode()}")
