"""Before a file is written: refuse what can't work, and note what is there.

The answers were checked while Cookiecutter asked (`local_extensions.py`), where a refusal costs the user one line.
Those from an edited replay file come past that, and meet the same checks here. What the bake does is in `bake/`.
"""

import os
import sys

CALL = {{ cookiecutter | guarded | literal }}
PROBLEM = {{ cookiecutter | refusal | literal }}
# Cookiecutter leaves the rendered hook, answers and all, in the temporary folder. No module that lies there, nor one
# on the user's PYTHONPATH, may stand in for the standard library's.
os.remove(__file__)
_OUTSIDE = [os.path.dirname(__file__), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
sys.path[:] = [CALL["hooks"], *(path for path in sys.path if path not in _OUTSIDE)]
sys.dont_write_bytecode = True

from pathlib import Path  # noqa: E402

from bake import processes, uv_workspace  # noqa: E402
from bake.notes import Notes  # noqa: E402


def main() -> "int | str":
    """Return 0, or the sentence with which the bake ends here."""
    notes = Notes(Path.cwd())
    obstacle = CALL["obstacle"]
    if not CALL["guarded"]:
        obstacle = notes.begin(created=not any(notes.workspace.iterdir()), guarded=False)
    if obstacle:
        return obstacle
    processes.listen()
    try:
        notes.at_work("hook", os.getpid())
        if not notes.begun():
            return 130  # interrupted before this began
        obstacle = PROBLEM or notes.obstacle(CALL["files"]) or uv_workspace.obstacle(notes.workspace)
        if obstacle:
            notes.forget()
            return obstacle
        notes.note(CALL["files"])
    except KeyboardInterrupt:
        if not notes.guard:
            notes.restore()
        return 130
    finally:
        processes.ignore()
        notes.at_work("hook", None)
    return 0


sys.exit(main())
