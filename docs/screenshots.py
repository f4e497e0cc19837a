# /// script
# requires-python = ">=3.11"
# dependencies = ["pillow>=12,<13", "playwright>=1.58,<2"]
# ///
"""Take the pictures of the chat page, docs/chat-*.png: ``uv run docs/screenshots.py``.

The last commit is baked, its own documents are ingested, and a person's words are typed into the page in a
real Chromium. Only the model's words come from here, so that nobody needs a key.
"""

import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Literal, NamedTuple

from PIL import Image
from playwright.sync_api import Page, sync_playwright

REPOSITORY = Path(__file__).resolve().parent.parent
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
LONGEST_START = 60.0


class Picture(NamedTuple):
    """What is typed, and how the page looks meanwhile."""

    name: str
    agent: str
    question: str
    scheme: Literal["light", "dark"]
    width: int
    height: int


PICTURES = (
    Picture("light", "knowledge", "How do I make a column required on a big table?", "light", 1120, 700),
    Picture("dark", "incidents", "Checkout has been down since nine, nobody can pay!", "dark", 1120, 700),
    Picture("phone", "assistant", "What time is it in Berlin?", "dark", 360, 700),
)

# The service with a model that knows these questions.
SERVICE = '''
import json

from pydantic_ai.messages import ToolReturnPart, UserPromptPart
from pydantic_ai.models.function import DeltaToolCall, FunctionModel

import agents
from api import routes
from chassis.app import create_app, find_agents, find_routers

SAFELY = """In two releases, so that nobody waits for a lock [1]:

1. Add a `CHECK` constraint as `NOT VALID`: it holds for new rows at once.
2. Fill in what is missing, then `VALIDATE` it: reading and writing go on meanwhile [2].

With the constraint in place, `SET NOT NULL` need not read the table any more."""
INCIDENT = {
    "title": "Checkout is down",
    "category": "outage",
    "severity": "critical",
    "summary": "The checkout has not worked since nine o'clock. No customer can pay.",
    "affected": "All customers of the shop",
}
REPLIES = {
    "How": ("search_documents", {"query": "expand and contract, NOT VALID, VALIDATE, SET NOT NULL"}, SAFELY),
    "Checkout": ("final_result", INCIDENT, ""),
    "What": ("current_time", {"time_zone": "Europe/Berlin"}, "In Berlin the clock says: **RESULT**."),
}


async def speak(messages, info):
    asked = [part for message in messages for part in message.parts if isinstance(part, UserPromptPart)]
    tool, arguments, answer = REPLIES[asked[-1].content.split()[0]]
    last = messages[-1].parts[-1]
    if isinstance(last, ToolReturnPart):
        yield answer.replace("RESULT", str(last.content))
    else:
        yield {0: DeltaToolCall(tool, json.dumps(arguments))}


app = create_app(
    agents=find_agents(agents),
    default_model=agents.DEFAULT_MODEL,
    routers=find_routers(routes),
    model=FunctionModel(stream_function=speak, model_name="pictures"),
)
'''


def main() -> None:
    """Bake, serve, and take the pictures."""
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None or shutil.which("uv") is None:
        sys.exit("This needs uv, and Chromium or Chrome. Install them, then: uv run docs/screenshots.py")
    with (
        tempfile.TemporaryDirectory(prefix="pictures-", ignore_cleanup_errors=True) as folder,
        serving(bake(Path(folder))) as address,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        page = browser.new_context(device_scale_factor=2, reduced_motion="reduce").new_page()
        for picture in PICTURES:
            take(page, address, picture)
        browser.close()


def bake(folder: Path) -> Path:
    """Make a workspace with documents and tables, and return its folder."""
    template = folder / "template"
    run(folder, "git", "clone", "--quiet", str(REPOSITORY), str(template))
    run(folder, "uvx", "cookiecutter", "--no-input", str(template), "install=no", "init_git=no")
    workspace = folder / "agent-api"
    run(workspace, "uv", "sync", "--quiet")
    run(workspace, "uv", "run", "alembic", "-c", "db/alembic.ini", "upgrade", "head")
    run(workspace, "uv", "run", "python", "-m", "chassis", "ingest", "db")
    (workspace / "pictures.py").write_text(SERVICE, encoding="utf-8")
    return workspace


def run(folder: Path, *command: str) -> None:
    """Run a command in a folder; what it prints is of no interest."""
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@contextmanager
def serving(workspace: Path) -> Iterator[str]:
    """Run the service and yield its address."""
    log = workspace / "server.log"
    with log.open("w") as output:
        command = [workspace / ".venv" / "bin" / "uvicorn", "pictures:app", "--port", "0"]
        process = subprocess.Popen(command, cwd=workspace, stdout=output, stderr=subprocess.STDOUT)
        try:
            deadline = time.monotonic() + LONGEST_START
            while not (found := re.search(r"running on (http://\S+)", log.read_text())):
                if process.poll() is not None or time.monotonic() > deadline:
                    sys.exit(f"The service did not start:\n{log.read_text()}")
                time.sleep(0.1)
            yield found[1]
        finally:
            process.terminate()
            process.wait()


def take(page: Page, address: str, picture: Picture) -> None:
    """Ask, wait for the answer, and keep what is seen in few colours, as the file is part of the README."""
    page.emulate_media(color_scheme=picture.scheme)
    page.set_viewport_size({"width": picture.width, "height": picture.height})
    page.goto("about:blank")
    page.goto(f"{address}/#agent={picture.agent}")
    box = page.get_by_role("textbox", name="Message")
    box.fill(picture.question)
    box.press("Enter")
    page.locator(".footer").wait_for()
    page.locator("#usage:not(:empty)").wait_for()
    if picture.name == "phone":
        page.locator("details.tool summary").click()
    page.locator("#view").evaluate("view => view.scrollTo(0, view.scrollHeight)")
    box.focus()
    page.wait_for_timeout(300)
    file = REPOSITORY / "docs" / f"chat-{picture.name}.png"
    image = Image.open(BytesIO(page.screenshot(caret="hide"))).convert("RGB")
    image.quantize(64, dither=Image.Dither.NONE).save(file, optimize=True)
    sys.stdout.write(f"{file.relative_to(REPOSITORY)}: {file.stat().st_size / 1000:.0f} kB\n")


if __name__ == "__main__":
    main()
