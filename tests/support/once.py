"""What is made once for all processes that run tests side by side."""

import fcntl
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

# What outlives the tests: Debian's files for the image. Named when this is imported,
# since the tests themselves run in an environment that knows nothing of the user's home.
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cookiecutter-agent-api"


@dataclass(frozen=True)
class Once:
    """The place where it is."""

    root: Path

    def folder(self, name: str, make: Callable[[Path], object]) -> Path:
        """Return the folder of this name, which the first process to ask makes, and for which others wait."""
        folder = self.root / name
        with (self.root / f"{name}.lock").open("a+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if lock.seek(0, os.SEEK_END) == 0:
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                make(folder)
                lock.write("made")
        return folder
