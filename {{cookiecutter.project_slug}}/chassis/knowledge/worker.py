"""Makes Markdown of a PDF, a Word document or a page of HTML: a program of its own, as documents are hostile input.

It reads the document from its standard input, and imports nothing of the service. What it may use is limited, and
it has none of the service's environment. Usage: worker.py KIND MEGABYTES SECONDS
"""

import io
import sys
from collections.abc import Callable

MAX_CHARS = 2_000_000


class DocumentProblemError(Exception):
    """What is wrong with the document."""


def limit(megabytes: int, seconds: int) -> None:
    """Let the process have so much memory and time, where the system can."""
    if sys.platform == "win32":
        return
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (megabytes << 20, megabytes << 20))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def from_pdf(data: bytes) -> str:
    """Return the text of each page."""
    from pypdf import PdfReader
    from pypdf.errors import PyPdfError

    try:
        reader = PdfReader(io.BytesIO(data))
        if reader.is_encrypted and not reader.decrypt(""):
            raise DocumentProblemError("is encrypted")
        text = "\n\n".join(page.extract_text() for page in reader.pages)
    except PyPdfError as error:
        raise DocumentProblemError("is no PDF that can be read") from error
    if not text.strip():
        raise DocumentProblemError("holds no text, only pictures of it")
    return text


def from_docx(data: bytes) -> str:
    """Return the text with its headings, lists and tables."""
    from zipfile import BadZipFile

    import mammoth  # type: ignore[import-untyped]

    try:
        # Pictures would come along as data.
        nothing = mammoth.images.img_element(lambda image: {"src": ""})
        html = mammoth.convert_to_html(io.BytesIO(data), convert_image=nothing).value
    except (BadZipFile, KeyError, ValueError, OSError) as error:
        raise DocumentProblemError("is no Word document that can be read") from error
    return from_html(html.encode())


def from_html(data: bytes) -> str:
    """Return what is to be read on the page."""
    from bs4 import BeautifulSoup
    from markdownify import MarkdownConverter

    page = BeautifulSoup(data, "html.parser")
    for element in page(["head", "script", "style", "template", "noscript", "svg", "img", "nav", "iframe"]):
        element.decompose()
    return str(MarkdownConverter(heading_style="ATX").convert_soup(page))


KINDS: dict[str, Callable[[bytes], str]] = {"pdf": from_pdf, "docx": from_docx, "html": from_html}


def main() -> int:
    """Run the program, and return its exit code: 3 where the document is to blame."""
    kind, megabytes, seconds = sys.argv[1:]
    limit(int(megabytes), int(seconds))
    try:
        text = KINDS[kind](sys.stdin.buffer.read())
        if len(text) > MAX_CHARS:
            raise DocumentProblemError(f"holds more than {MAX_CHARS} characters")
    except DocumentProblemError as problem:
        sys.stderr.write(f"{problem}\n")
        return 3
    except MemoryError:
        sys.stderr.write("takes too much memory to read\n")
        return 3
    except RecursionError:
        sys.stderr.write("is nested too deeply to read\n")
        return 3
    sys.stdout.buffer.write(text.encode(errors="replace"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
