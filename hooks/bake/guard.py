"""Wait beside Cookiecutter: where it ends before the bake has, put back what was there before.

Cookiecutter itself leaves half a folder when it is interrupted, when its terminal closes, and when it is killed, and
its hooks may not even run then. This process is in no terminal's reach. It lives until the bake's notes are gone, or
until its standard input ends, as it does when Cookiecutter ends, in whatever way.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bake.notes import Notes  # noqa: E402


def main() -> None:
    """Begin the notes, answer with "" or with what is in the way, then wait."""
    call = json.loads(os.environ["BAKE_CALL"])
    notes = Notes(Path(call["workspace"]))
    obstacle = notes.begin(call["created"], guarded=True)
    if not obstacle:
        notes.temporary(call["temporary"])
    with contextlib.suppress(OSError):  # Cookiecutter may have ended by now
        print(json.dumps(obstacle), flush=True)
    if obstacle:
        return
    ended = threading.Event()

    def wait_for_the_end() -> None:
        while os.read(0, 4096):
            pass
        ended.set()

    threading.Thread(target=wait_for_the_end, daemon=True).start()
    while not ended.wait(0.1):
        if notes.guard != os.getpid():
            return
    if notes.guard == os.getpid():
        notes.end_what_is_at_work()
    # The hook may have put everything back by now.
    if notes.guard == os.getpid():
        notes.restore()


main()
