"""What lies in a folder, to the byte, so that a test can tell whether it is still the same."""

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from tests.support.commands import ROOT
from tests.support.workspaces import TEMPLATE_FOLDER

Belongings = dict[str, tuple[int, bytes | str]]

TEMPLATE_FILES = frozenset(
    path.relative_to(ROOT / TEMPLATE_FOLDER).as_posix()
    for path in (ROOT / TEMPLATE_FOLDER).rglob("*")
    if path.is_file() and "__pycache__" not in path.parts
)


def look(folder: Path) -> Belongings:
    """Every file, link and folder below this one: its mode, and its contents or where it leads."""
    found: Belongings = {}
    for place, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            path = Path(place, name)
            mode = path.lstat().st_mode
            contents: bytes | str = ""
            if stat.S_ISLNK(mode):
                contents = str(path.readlink())
            elif stat.S_ISREG(mode):
                contents = path.read_bytes()
            found[str(path.relative_to(folder))] = (mode, contents)
    return found


def files(folder: Path, *, without: Collection[str] = ()) -> dict[str, bytes]:
    """The contents of every file below this folder, but for those in folders of these names."""
    names = {path: path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
    return {
        name.as_posix(): path.read_bytes()
        for path, name in names.items()
        if not set(without) & set(name.parts)
    }


def below(found: Belongings, *folders: str) -> Belongings:
    """What of it lies in these folders, themselves included."""
    return {
        name: what
        for name, what in found.items()
        if any(name == folder or name.startswith(f"{folder}/") for folder in folders)
    }


def write(folder: Path, files: Mapping[str, str | bytes]) -> None:
    for name, contents in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(contents.encode() if isinstance(contents, str) else contents)


def start_bake(
    output: Path,
    *arguments: str,
    template: Path = ROOT,
    options: Sequence[str] = (),
    temporary: Path | None = None,
) -> "subprocess.Popen[str]":
    """Start Cookiecutter in a session of its own, as a terminal does, to be interrupted."""
    own = {"TMPDIR": str(temporary)} if temporary else {}
    return subprocess.Popen(
        [sys.executable, "-m", "cookiecutter", "--no-input", *options, "-o", output, template, *arguments],
        env={**os.environ, **own},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        # Which nohup and what runs in the background ignore, and hand on.
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
    )


def wait_until(condition: Callable[[], bool], seconds: float = 30) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"not within {seconds} s"
        time.sleep(0.05)
