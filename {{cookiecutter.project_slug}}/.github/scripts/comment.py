"""Put what the new revisions do on the pull request: one comment, which later runs update.

Runs in the repository's own name after a run of CI, whose report may be anybody's, as a fork's pull request changes the
code that writes it. So the report is text: it can't mention, link, close or hide anything. Which pull request it belongs
to is told by GitHub's event, never by the report. Needs Python, and gh with GH_TOKEN.
"""

import io
import json
import os
import re
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path
from typing import Any

MARKER = "<!-- what the new revisions do -->"
AUTHOR = "github-actions[bot]"
ARTIFACT, FILE = "revisions", "revisions.md"
NOTHING = "There is no new revision."
# What an archive raises that isn't one.
UNREADABLE = (zipfile.BadZipFile, zlib.error, EOFError, KeyError, RuntimeError)
MOST = 1_000_000  # bytes that are read of a report
LIMIT = 65_536  # of a comment, in characters; bytes are never fewer
LINE = 4_000
# The only links that a report may have: into the guide, or to a rule of squawk's.
LINK = re.compile(r"\[what to do\]\((?:db/LINT\.md#([a-z-]+)|https://squawkhq\.com/docs/([a-z-]+))\)")
# How a line of a report begins; `/command` or a fence is none of them.
BEGINNING = re.compile(r"### |\*\*|- |\| |`(?!`)|$")
# What would be a tag, a mention, a number of an issue, an entity, or a link, if what follows followed at once.
ACTIVE = re.compile(r"[<@#&]|\](?=[(:\[])|:(?=//)|www(?=\.)|\bGH(?=-\d)", re.IGNORECASE)
APART = "\N{WORD JOINER}"


def main() -> str:
    """Comment, and return what was done, for the log."""
    event = json.loads(Path(os.environ["GITHUB_EVENT_PATH"]).read_text(encoding="utf-8"))
    run, repository = event["workflow_run"], os.environ["GITHUB_REPOSITORY"]
    number = find_pull_request(repository, run)
    if number is None:
        return "No open pull request is at the commit that was checked, or more than one is."
    report = read_report(repository, run["id"])
    if report is None:
        return "The run left no report."
    comment = find_comment(repository, number)
    if comment is None and NOTHING in report:
        return NOTHING
    body = write_comment(report, f"{os.environ['GITHUB_SERVER_URL']}/{repository}", run)
    if comment is None:
        ask(f"repos/{repository}/issues/{number}/comments", "POST", body=body)
    elif comment["body"] != body:
        ask(f"repos/{repository}/issues/comments/{comment['id']}", "PATCH", body=body)
    return f"{'Commented on' if comment is None else 'Updated the comment of'} pull request {number}."


def ask(path: str, method: str = "GET", *, body: str | None = None, **fields: str) -> Any:
    """Ask GitHub's API and return what it answers."""
    answer = _gh(path, method, body, fields)
    return json.loads(answer)


def _gh(path: str, method: str, body: str | None, fields: dict[str, str]) -> bytes:
    command = ["gh", "api", "--method", method, path]
    for name, value in fields.items():
        command += ["--raw-field", f"{name}={value}"]
    if body is not None:
        command += ["--input", "-"]
    given = None if body is None else json.dumps({"body": body}).encode()
    return subprocess.run(command, input=given, stdout=subprocess.PIPE, check=True).stdout  # noqa: S603


def find_pull_request(repository: str, run: dict[str, Any]) -> int | None:
    """Return the number of the open pull request whose newest commit was checked, if there is exactly one."""
    head = run["head_repository"]
    if head is None:  # a fork that is gone
        return None
    place = f"{head['owner']['login']}:{run['head_branch']}"
    found = ask(f"repos/{repository}/pulls", state="open", head=place, per_page="100")
    numbers = [
        int(pull["number"])
        for pull in found
        if pull["head"]["sha"] == run["head_sha"]
        and (pull["head"]["repo"] or {}).get("full_name") == head["full_name"]
    ]
    return numbers[0] if len(numbers) == 1 else None


def read_report(repository: str, run: int) -> str | None:
    """Return the report that the run has left, None for none."""
    listed = ask(f"repos/{repository}/actions/runs/{run}/artifacts", name=ARTIFACT, per_page="100")
    usable = [
        artifact["id"]
        for artifact in listed["artifacts"]
        if artifact["name"] == ARTIFACT and not artifact["expired"] and artifact["size_in_bytes"] <= MOST
    ]
    if not usable:
        return None
    # Nothing of it is unpacked, and no more is read than a report can have.
    packed = _gh(f"repos/{repository}/actions/artifacts/{max(usable)}/zip", "GET", None, {})
    try:
        with zipfile.ZipFile(io.BytesIO(packed)) as archive, archive.open(FILE) as file:
            return file.read(MOST).decode("utf-8", "replace")
    except UNREADABLE:
        return None


def find_comment(repository: str, number: int) -> dict[str, Any] | None:
    """Return the comment that an earlier run has made; anybody may write one that looks the same."""
    page = 1
    while True:
        path = f"repos/{repository}/issues/{number}/comments"
        comments: list[dict[str, Any]] = ask(path, per_page="100", page=str(page))
        for comment in comments:
            author = (comment["user"] or {}).get("login")
            if author == AUTHOR and comment["body"].startswith(MARKER):
                return comment
        if len(comments) < 100:
            return None
        page += 1


def write_comment(report: str, repository: str, run: dict[str, Any]) -> str:
    """Return the comment: the report as text, as much as has room, and whence it comes."""
    page = f"{repository}/actions/runs/{int(run['id'])}"
    end = f"\n\nSeen at {run['head_sha'][:12]}, [in this run]({page})."
    cut = "\n\nThe rest is on the page of the run."
    room = LIMIT - len(f"{MARKER}\n{cut}{end}".encode())
    lines = [harmless(line, f"{repository}/blob/HEAD/db/LINT.md") for line in report.strip().splitlines()]
    kept: list[str] = []
    for line in lines:
        room -= len(line.encode()) + 1
        if room < 0:
            return "\n".join([MARKER, *kept]) + cut + end
        kept.append(line)
    return "\n".join([MARKER, *kept]) + end


def harmless(line: str, guide: str) -> str:
    """Return a line of a report as text, with links to nothing but what to do."""
    line = line.strip()[:LINE]
    beginning = BEGINNING.match(line)
    written, rest = ("- ", line) if beginning is None else (beginning[0], line[beginning.end() :])
    last = 0
    for link in LINK.finditer(rest):
        target = f"{guide}#{link[1]}" if link[1] else f"https://squawkhq.com/docs/{link[2]}"
        written += f"{_text(rest[last : link.start()])}[what to do]({target})"
        last = link.end()
    return written + _text(rest[last:])


def _text(words: str) -> str:
    printable = "".join(character for character in words if character.isprintable())
    return ACTIVE.sub(lambda found: found[0] + APART, printable)


if __name__ == "__main__":
    sys.stdout.write(f"{main()}\n")
