"""Note when each child process of a Python process began and ended.

Python imports this by itself where PYTHONPATH names its folder. It is how the benchmark looks into a
real bake: Cookiecutter starts the hooks, and a hook starts its commands. Each ended child adds a line
to the file that BENCH_TRACE names: parent's pid, pid, begin, end (seconds of one monotonic clock), command.
"""

import json
import os
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any


class TracedPopen(subprocess.Popen):  # type: ignore[type-arg]
    """A Popen that writes the line. It changes nothing about how the child runs."""

    def __init__(self, args: Any, *rest: Any, **options: Any) -> None:
        """Start the child, and a thread that waits for its end."""
        began = time.monotonic()
        super().__init__(args, *rest, **options)
        threading.Thread(target=self._note_end, args=(began, args)).start()

    def _note_end(self, began: float, args: Any) -> None:
        # Waits for the end itself, without collecting the child: whoever polls for it notices later,
        # and that delay belongs to the parent.
        with suppress(ChildProcessError):  # the parent was quicker
            os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        line = json.dumps([os.getpid(), self.pid, began, time.monotonic(), [str(arg) for arg in args]])
        with Path(os.environ["BENCH_TRACE"]).open("a", encoding="utf-8") as log:
            log.write(line + "\n")


if "BENCH_TRACE" in os.environ:
    subprocess.Popen = TracedPopen  # type: ignore[misc]
