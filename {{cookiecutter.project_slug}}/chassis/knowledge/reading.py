"""The text of a document, whatever kind it is. What has to be taken apart for it is given to a process of its own."""

import os
import re
import subprocess
import sys
from pathlib import Path, PurePosixPath

WORKER = Path(__file__).with_name("worker.py")
# For one document.
MEGABYTES, SECONDS = 1024, 60
SUFFIXES = (".md", ".rst", ".txt", ".pdf", ".docx", ".html", ".htm")
# What is taken is never given back: of a document that is made for it, there would be endless ways to try.
HTML = re.compile(rb"\s*+(?><!--.*?-->\s*+)*+(?:<!doctype\s+html|<html)", re.IGNORECASE | re.DOTALL)


class UnreadableError(ValueError):
    """A document can't be read; the message goes after its name."""


def kind_of(data: bytes, name: str) -> str:
    """Return what a document is, by its contents, and where these leave it open by its name."""
    suffix = PurePosixPath(name).suffix.lower()
    if data.startswith(b"%PDF-") or suffix == ".pdf":
        return "pdf"
    if data.startswith(b"PK\x03\x04") or suffix == ".docx":
        return "docx"
    return "html" if suffix in {".html", ".htm"} or HTML.match(data) else "text"


def read(
    data: bytes,
    name: str,
    *,
    seconds: int = SECONDS,
    megabytes: int = MEGABYTES,
    most: int | None = None,
) -> str:
    """Return the text of a document, as Markdown where it has headings.

    Args:
        data: its contents.
        name: its name, where they leave open what it is.
        seconds: how much time it may take where it has to be taken apart.
        megabytes: how much memory.
        most: how many characters plain text may have; what is taken apart may have 2 million.

    Raises:
        UnreadableError: if there is none to be had.
    """
    kind = kind_of(data, name)
    if kind != "text":
        return _convert(data, kind, seconds, megabytes).replace("\0", "")
    try:
        text = data.decode("utf-8-sig").replace("\0", "")
    except UnicodeDecodeError as error:
        raise UnreadableError("is not UTF-8") from error
    if most is not None and len(text) > most:
        raise UnreadableError(f"holds more than {most} characters")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _convert(data: bytes, kind: str, seconds: int, megabytes: int) -> str:
    # No key, password or proxy of ours; Windows starts nothing without the second.
    env = {name: os.environ[name] for name in ("PATH", "SYSTEMROOT") if name in os.environ}
    command = [sys.executable, "-I", "-X", "utf8", str(WORKER), kind, str(megabytes), str(seconds)]
    try:
        done = subprocess.run(
            command, input=data, env=env, capture_output=True, timeout=2 * seconds, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise UnreadableError("takes too long to read") from error
    if done.returncode == 0:
        return done.stdout.decode()
    if done.returncode == 3:
        raise UnreadableError(done.stderr.decode(errors="replace").strip().splitlines()[-1])
    if done.returncode < 0:
        raise UnreadableError("takes too long to read, or too much memory")
    raise UnreadableError(f"is no document that can be read ({kind})")
