"""Running a step: it moves on the screen, and however it is interrupted, nothing of it goes on running."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

TERMINAL = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class StepError(Exception):
    """A step didn't succeed. Holds its title, the commands to repeat it, and what it printed."""


def listen() -> None:
    """Take each signal that ends a process as Ctrl-C, once: a second one mustn't interrupt the cleaning up."""

    def interrupt(*_: object) -> None:
        ignore()
        raise KeyboardInterrupt

    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup asks for
            signal.signal(number, interrupt)


def ignore() -> None:
    """Let nothing interrupt what comes now."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def say(text: str, error: bool = False) -> None:
    """Print a line, unless nobody is there any more to read it, which is no reason to fail."""
    with contextlib.suppress(OSError, ValueError):
        print(text, file=sys.stderr if error else sys.stdout, flush=True)


def run(
    title: str,
    command: Sequence[str],
    repeat: str,
    environment: Mapping[str, str],
    started: Callable[[int | None], None],
) -> None:
    """Run a command of the workspace, show that it moves, and print a line with its time.

    Args:
        title: what it does.
        command: the program and its arguments.
        repeat: the commands with which a person repeats it.
        environment: its variables.
        started: is told of its process, and of its end with None.

    Raises:
        StepError: with what the command printed, where it can't be started or doesn't succeed.
    """
    began = time.monotonic()
    with tempfile.TemporaryFile() as output:
        try:
            # In a session of its own: what a terminal sends to all of its processes, only we pass on, in order.
            process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            raise StepError(title, repeat, str(error)) from error
        done = threading.Event()
        wheel = threading.Thread(target=_turn, args=(title, began, done), daemon=True)
        try:
            started(process.pid)
            wheel.start()
            process.wait()
        finally:
            # After an interruption it still runs.
            if process.poll() is None:
                end_group(process.pid, process)
            started(None)
            done.set()
        wheel.join()
        output.seek(0)
        printed = output.read().decode("utf-8", "replace")
    if process.returncode != 0:
        raise StepError(title, repeat, printed)
    say(f"{clear()}ok  {title} ({time.monotonic() - began:.1f} s)")


def _turn(title: str, began: float, done: threading.Event) -> None:
    """Until it is done, turn a wheel, or without a terminal say every 10 s that it goes on."""
    if not TERMINAL:
        say(f"... {title}")
    for sign in itertools.cycle("-\\|/"):
        if done.wait(0.1 if TERMINAL else 10):
            return
        line = f"{clear()}{sign}   {title} ({time.monotonic() - began:.0f} s)"
        with contextlib.suppress(OSError, ValueError):
            print(line, end="" if TERMINAL else "\n", flush=True)


def clear() -> str:
    """Return what clears the line that moves."""
    return "\r\033[K" if TERMINAL else ""


# ── ending what runs ──


def is_alive(process: int) -> bool:
    """Whether a process runs. Its remains don't count, which a container's first process may leave for ever."""
    if os.name == "nt":
        return True
    with contextlib.suppress(OSError, IndexError):  # Linux
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True


def send(process: int, name: str, *, group: bool = False) -> bool:
    """Send a signal, where there is such a process and such a signal."""
    try:
        if group and hasattr(os, "killpg"):
            os.killpg(process, getattr(signal, name))
        else:
            os.kill(process, getattr(signal, name, signal.SIGTERM))
    except (OSError, ValueError):
        return False
    return True


def end_group(leader: int, ours: subprocess.Popen[bytes] | None = None) -> None:
    """End a process and all of its group: as Ctrl-C does, so that it cleans up, and harder where that doesn't help."""
    for name, seconds in (("SIGINT", 15), ("SIGTERM", 5), ("SIGKILL", 5)):
        sent = send(leader, name, group=True)
        until = time.monotonic() + seconds
        while sent and time.monotonic() < until:
            if ours is not None:
                ours.poll()
            if (ours is None or ours.returncode is not None) and not send_nothing(leader):
                return
            time.sleep(0.05)


def send_nothing(leader: int) -> bool:
    """Whether there is anything left of a group."""
    if not hasattr(os, "killpg"):
        return False
    try:
        os.killpg(leader, 0)
    except OSError:
        return False
    return True


def end_servers(folder: Path) -> None:
    """Stop the PostgreSQL servers whose data is in a folder of ours; they leave their starter's group."""
    for file in folder.glob("**/postmaster.pid"):
        try:
            server = abs(int(file.read_text().split()[0]))  # negative while it is being set up
        except (OSError, ValueError, IndexError):
            continue
        for name in ("SIGINT", "SIGQUIT", "SIGKILL"):  # fast, at once, by force
            until = time.monotonic() + 3
            send(server, name)
            while is_alive(server) and time.monotonic() < until:
                time.sleep(0.05)
