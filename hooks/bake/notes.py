"""What was in the folder before this bake, and how it is put back where the bake fails or is interrupted.

The notes lie in `.bake/` of the folder, out of git's sight, and go when the bake has ended:

    begun.json    whether Cookiecutter made the folder; the first thing that is written
    before.json   what was there of all that a bake writes; it comes last, so `files/` is complete when it is there
    files/        copies of that
    venv/         a copy of the virtual environment that was there
    hook, child   the processes that are at work
    ending        it was interrupted: no hook begins any more
    temporary     files and folders outside that go with the bake
"""

from __future__ import annotations

import contextlib
import filecmp
import json
import os
import shutil
import time
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from bake import processes

# What the bake writes beside the template's files.
LOCK = "uv.lock"
CRUFT = ".cruft.json"
# Where that is another template's.
CRUFT_BESIDE = "chassis/.cruft.json"
FOLDERS = (".venv", ".git")


class Notes:
    """The notes about one folder that is being baked."""

    def __init__(self, workspace: Path) -> None:
        """Read nothing yet: each question looks at what is written now."""
        self.workspace = workspace
        self.folder = workspace / ".bake"
        self._before: dict[str, Any] = {}

    def begun(self) -> bool:
        """Whether a bake is under way here, and hasn't been interrupted."""
        return (self.folder / "begun.json").exists() and not (self.folder / "ending").exists()

    def begin(self, created: bool, guarded: bool) -> str:
        """Write the first note. Return a sentence where it must not be, or "".

        Whatever an earlier bake has left when the machine went down is its user's to judge.
        """
        try:
            self.folder.mkdir()
            (self.folder / ".gitignore").write_text("*\n", encoding="utf-8")
            self._write("begun.json", {"created": created, "guard": os.getpid() if guarded else None})
        except FileExistsError:
            return (
                f"Another bake is at work in {self.workspace}, or was cut off there. If none is: what was there "
                "before it lies in .bake/files. Copy back what you want of it, and remove .bake."
            )
        except OSError as error:
            return f"The folder {self.workspace} can't be written to: {error.strerror}."
        return ""

    def forget(self) -> None:
        """End the bake: nothing will be put back any more."""
        with contextlib.suppress(OSError):
            # At once, so that whoever looks finds all of the notes or none.
            done = self.folder.with_name(f".bake-{os.getpid()}")
            self.folder.rename(done)
            shutil.rmtree(done)

    @property
    def created(self) -> bool:
        """Whether Cookiecutter made the folder, so that all in it is this bake's."""
        return bool(self._read("begun.json").get("created"))

    @property
    def guard(self) -> int | None:
        """The process that puts things back when Cookiecutter has ended, if there is one."""
        return self._read("begun.json").get("guard")

    # ── before ──

    def obstacle(self, template: Iterable[str]) -> str:
        """Say what of the user's would be written through or break the bake half-way, or ""."""
        if "%" in str(self.workspace):
            # Alembic hands the path to configparser, to which % means something else.
            return f"Alembic can't read its configuration below a folder with % in its name, {self.workspace}: choose another one with -o."
        for name in (*template, LOCK):
            parts = PurePosixPath(name).parts
            for number in range(1, len(parts) + 1):
                path = self.workspace.joinpath(*parts[:number])
                shown = "/".join(parts[:number])
                if path.is_symlink():
                    return f"{shown} is a link to {path.readlink()}, and the bake would write there. Put a copy in its place, or bake elsewhere."
                if not path.exists():
                    break
                if path.is_dir() is (number == len(parts)):
                    kind = "folder" if path.is_dir() else "file"
                    return f"{shown} is a {kind}, and the template has something else of that name. Rename it, or bake elsewhere."
                if not os.access(path, os.W_OK):
                    return f"{shown} can't be written to. Change its mode, or bake elsewhere."
        if (self.workspace / ".venv").is_symlink():
            return ".venv is a link, and the packages would be installed where it leads. Remove it, or bake elsewhere."
        return ""

    def note(self, template: Iterable[str]) -> None:
        """Copy what the bake may write over, before it does."""
        files, folders = [], set()
        for name in (*template, LOCK, CRUFT, CRUFT_BESIDE):
            path = self.workspace / name
            folders |= {
                str(parent) for parent in PurePosixPath(name).parents if (self.workspace / parent).is_dir()
            }
            if path.exists():
                copy = self.folder / "files" / name
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, copy)
                files.append(name)
        folders |= {name for name in FOLDERS if os.path.lexists(self.workspace / name)}
        before = {"template": list(template), "files": files, "folders": sorted(folders)}
        self._write("before.json", before)

    def note_venv(self) -> None:
        """Copy the virtual environment that is there, if any. Installing replaces packages, so links to them do."""
        if not (self.workspace / ".venv").exists():
            return
        packages = f"{os.sep}site-packages{os.sep}"

        def copy(source: str, target: str) -> None:
            if packages in source:
                with contextlib.suppress(OSError):
                    os.link(source, target)
                    return
            shutil.copy2(source, target)

        part = self.folder / "venv.part"
        shutil.copytree(self.workspace / ".venv", part, symlinks=True, copy_function=copy)
        part.rename(self.folder / "venv")

    # ── after ──

    @property
    def before(self) -> dict[str, Any]:
        """The note of what was there; empty as long as it isn't complete, and nothing was written over."""
        self._before = self._before or self._read("before.json")
        return self._before

    def was_there(self, name: str) -> bool:
        """Whether this file or folder was there before the bake."""
        return name in self.before["files"] or name in self.before["folders"]

    def template(self) -> list[str]:
        """The names of all files that the template has."""
        return list(self.before["template"])

    def put_back(self, names: Iterable[str] | None = None) -> None:
        """Make these files, or all that a bake writes, what they were before it: theirs, or not there."""
        files = set(self.before["files"])
        for name in (*self.before["template"], LOCK, CRUFT, CRUFT_BESIDE) if names is None else names:
            path, copy = self.workspace / name, self.folder / "files" / name
            if name not in files:
                path.unlink(missing_ok=True)
            elif (
                not path.exists()
                or not filecmp.cmp(path, copy, shallow=False)
                or path.stat().st_mode != copy.stat().st_mode
            ):
                # Into the same file: its owner and its other names stay.
                path.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(copy, path)
                shutil.copystat(copy, path)
        self._remove_empty()

    def restore(self) -> None:
        """Put everything back, and end the bake."""
        if self.created:
            remove_all(self.workspace)
            return
        if self.before:
            self.put_back()
            kept = self.folder / "venv"
            for name in FOLDERS:
                path = self.workspace / name
                if not self.was_there(name) or (name == ".venv" and kept.exists()):
                    remove_all(path)
            if kept.exists():
                kept.rename(self.workspace / ".venv")
        self.forget()

    def _remove_empty(self) -> None:
        """Remove the folders that this bake has made and that hold nothing any more."""
        made = {str(parent) for name in self.before["template"] for parent in PurePosixPath(name).parents}
        for name in sorted(made - set(self.before["folders"]) - {"."}, key=len, reverse=True):
            with contextlib.suppress(OSError):
                (self.workspace / name).rmdir()

    # ── what is at work ──

    def at_work(self, who: str, process: int | None) -> None:
        """Note the process that is at work as the hook or its child, or with None that it has ended.

        A hook notes itself before it asks whether the bake has begun, and the guard notes that it ends it before it
        looks who is at work: so neither misses the other.
        """
        with contextlib.suppress(FileNotFoundError):
            if process is None:
                (self.folder / who).unlink()
            else:
                (self.folder / who).write_text(str(process), encoding="utf-8")

    def temporary(self, path: str) -> None:
        """Note a file or folder outside that must not outlive the bake."""
        with contextlib.suppress(OSError), (self.folder / "temporary").open("a", encoding="utf-8") as file:
            file.write(json.dumps(path) + "\n")

    def end_what_is_at_work(self, seconds: float = 60) -> None:
        """For the guard: end the hook, which ends its child; then what it couldn't; then remove what is temporary."""
        with contextlib.suppress(OSError):
            (self.folder / "ending").touch()
        if hook := self._process("hook"):
            processes.send(hook, "SIGTERM")
            until = time.monotonic() + seconds
            while self._process("hook") and processes.is_alive(hook) and time.monotonic() < until:
                time.sleep(0.05)
        if child := self._process("child"):
            processes.end_group(child)
        with contextlib.suppress(OSError):
            for line in (self.folder / "temporary").read_text(encoding="utf-8").splitlines():
                processes.end_servers(Path(json.loads(line)))
                remove_all(Path(json.loads(line)))

    def _process(self, who: str) -> int:
        try:
            return int((self.folder / who).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return 0

    def _read(self, name: str) -> dict[str, Any]:
        try:
            return dict(json.loads((self.folder / name).read_text(encoding="utf-8")))
        except (OSError, ValueError):
            return {}

    def _write(self, name: str, value: object) -> None:
        part = self.folder / f"{name}.part"
        part.write_text(json.dumps(value), encoding="utf-8")
        part.replace(self.folder / name)


def remove_all(path: Path) -> None:
    """Remove a file or a folder, also where something that is just ending still writes into it."""
    for pause in (0, 0.1, 0.3, 1):
        time.sleep(pause)
        if path.is_symlink() or path.is_file():
            path.unlink(missing_ok=True)
        else:
            shutil.rmtree(path, ignore_errors=True)
        if not os.path.lexists(path):
            return
