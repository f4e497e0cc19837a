""".github/scripts: what the new revisions do, from CI's run to one comment on the pull request.

What isn't real: GitHub. A program of this test's stands for gh, and keeps pull requests, comments and artifacts in a file.
"""

import json
import os
import re
import runpy
import stat
import sys
import zipfile
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from tests.safety.test_lint import Repository
from tests.support.commands import ROOT, Outcome, run
from tests.support.workspaces import Workspace

WORKSPACE = ROOT / "{{cookiecutter.project_slug}}"
SCRIPTS = WORKSPACE / ".github/scripts"
SCRIPT = runpy.run_path(str(SCRIPTS / "comment.py"), run_name="comment")
SERVER, REPOSITORY = "https://github.com", "example/agent-api"
SHA = "a" * 40
BOT = {"login": "github-actions[bot]"}
MARKER = "<!-- what the new revisions do -->"
APART = "\N{WORD JOINER}"
REPORT = """### What the new revisions do

**1 finding**

- `1_add.py:14` **index-under-lock**: Every write of `users` waits. ([what to do](db/LINT.md#index-under-lock))

`1_add.py`

| Line | Statement | Seen on PostgreSQL |
| ---: | --- | --- |
| 14 | `CREATE INDEX i ON users (age)` | users: stops writes, builds an index |
"""
# Answers what GitHub answers: https://docs.github.com/rest
GH = """#!{python}
import json, pathlib, re, sys
state_file = pathlib.Path(__file__).with_name("github.json")
state = json.loads(state_file.read_text())
command, method_option, method, path, *rest = sys.argv[1:]
assert (command, method_option) == ("api", "--method"), sys.argv
fields = dict(f.split("=", 1) for f in rest[1::2]) if rest[:1] == ["--raw-field"] else {{}}
state["asked"].append([method, path, fields])
where = path.removeprefix("repos/{repository}/")
if where == "pulls":
    owner, _, branch = fields["head"].partition(":")
    answer = [p for p in state["pulls"] if p["head"]["ref"] == branch and p["head"]["owner"] == owner]
elif where == "actions/runs/7/artifacts":
    answer = {{"artifacts": state["artifacts"]}}
elif found := re.fullmatch(r"actions/artifacts/(\\d+)/zip", where):
    sys.stdout.buffer.write(pathlib.Path(__file__).with_name(found[1] + ".zip").read_bytes())
    answer = None
elif found := re.fullmatch(r"issues/(\\d+)/comments", where):
    comments = state["comments"].setdefault(found[1], [])
    if method == "POST":
        answer = {{"id": 1000 + len(comments), "user": {bot}, **json.load(sys.stdin)}}
        comments.append(answer)
    else:
        first = (int(fields["page"]) - 1) * int(fields["per_page"])
        answer = comments[first : first + int(fields["per_page"])]
elif found := re.fullmatch(r"issues/comments/(\\d+)", where):
    assert method == "PATCH", method
    answer = next(c for cs in state["comments"].values() for c in cs if c["id"] == int(found[1]))
    answer.update(json.load(sys.stdin))
else:
    sys.exit("gh: Not Found (HTTP 404): " + where)
state_file.write_text(json.dumps(state))
if answer is not None:
    print(json.dumps(answer))
"""


def program(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@dataclass
class GitHub:
    """The repository on GitHub, and the runner on which the comment is made."""

    folder: Path

    @property
    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "github.json").read_text())
        return found

    def change(self, **parts: Any) -> None:
        (self.folder / "github.json").write_text(json.dumps({**self.state, **parts}))

    def pull_request(
        self,
        number: int,
        *,
        owner: str = "somebody",
        fork: str = "agent-api",
        branch: str = "topic",
        sha: str = SHA,
    ) -> None:
        head = {"sha": sha, "ref": branch, "owner": owner, "repo": {"full_name": f"{owner}/{fork}"}}
        self.change(pulls=[*self.state["pulls"], {"number": number, "head": head}])

    def artifact(
        self, content: bytes | str, number: int = 1, name: str = "revisions", file: str = "revisions.md"
    ) -> None:
        packed = BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(file, content)
        (self.folder / f"{number}.zip").write_bytes(packed.getvalue())
        size = len(packed.getvalue())
        artifact = {"id": number, "name": name, "expired": False, "size_in_bytes": size}
        self.change(artifacts=[*self.state["artifacts"], artifact])

    def comments(self, number: int = 12) -> list[str]:
        return [comment["body"] for comment in self.state["comments"].get(str(number), [])]

    def completed(self, **of_run: Any) -> Outcome:
        """Let the run of CI be over: the script runs, with no network and no checkout."""
        owner = {"login": "somebody"}
        head = {"head_repository": {"full_name": "somebody/agent-api", "owner": owner}}
        event = {"workflow_run": {"id": 7, "head_branch": "topic", "head_sha": SHA, **head, **of_run}}
        (self.folder / "event.json").write_text(json.dumps(event))
        env = {
            "PATH": f"{self.folder}{os.pathsep}{os.environ['PATH']}",
            "GITHUB_EVENT_PATH": str(self.folder / "event.json"),
            "GITHUB_REPOSITORY": REPOSITORY,
            "GITHUB_SERVER_URL": SERVER,
        }
        return run(sys.executable, SCRIPTS / "comment.py", cwd=self.folder, env=env)


@pytest.fixture
def github(tmp_path: Path) -> GitHub:
    program(tmp_path / "gh", GH.format(python=sys.executable, repository=REPOSITORY, bot=BOT))
    empty: dict[str, Any] = {"pulls": [], "artifacts": [], "comments": {}, "asked": []}
    (tmp_path / "github.json").write_text(json.dumps(empty))
    return GitHub(tmp_path)


def seen(body: str) -> str:
    """The comment as it is read, without what keeps it from being more than text."""
    return body.replace(APART, "")


def test_the_report_becomes_one_comment_that_is_updated(github: GitHub) -> None:
    github.pull_request(12)
    github.artifact(REPORT)
    assert "Commented on pull request 12." in github.completed().output
    (body,) = github.comments()
    assert body.startswith(f"{MARKER}\n### What the new revisions do\n")
    guide = f"{SERVER}/{REPOSITORY}/blob/HEAD/db/LINT.md"
    assert seen(body) == (
        f"{MARKER}\n{REPORT.strip().replace('db/LINT.md', guide)}\n\n"
        f"Seen at {SHA[:12]}, [in this run]({SERVER}/{REPOSITORY}/actions/runs/7)."
    )
    github.completed()
    assert [asked for asked in github.state["asked"] if asked[0] == "PATCH"] == [], "nothing has changed"
    github.artifact("### What the new revisions do\n\nThere is no new revision.\n", number=2)
    assert "Updated the comment of pull request 12." in github.completed().output
    (body,) = github.comments()
    assert "There is no new revision." in body
    assert "index-under-lock" not in body


def test_no_comment_where_no_revision_is_new(github: GitHub) -> None:
    github.pull_request(12)
    github.artifact("### What the new revisions do\n\nThere is no new revision.\n")
    github.completed()
    assert github.comments() == []


def test_a_comment_of_somebody_else_is_left_alone(github: GitHub) -> None:
    """It stands where it does, even beyond the first hundred."""
    github.pull_request(12)
    github.artifact(REPORT)
    others = [{"id": n, "user": {"login": "somebody"}, "body": f"{MARKER}\nLooks good"} for n in range(150)]
    ours = {"id": 500, "user": BOT, "body": f"{MARKER}\nold"}
    quoted = {"id": 501, "user": BOT, "body": f"> {MARKER}\nanother workflow's"}
    ghost = {"id": 502, "user": None, "body": MARKER}
    github.change(comments={"12": [ghost, *others, quoted, ours]})
    github.completed()
    comments = github.comments()
    assert comments[:-1] == [MARKER, *(comment["body"] for comment in others), quoted["body"]]
    assert "index-under-lock" in comments[-1]


@pytest.mark.parametrize("content", [REPORT + "\nPull request: 13\n", '{"number": 13}'])
def test_which_pull_request_it_is_says_the_event(github: GitHub, content: str) -> None:
    """Neither the report, nor a branch of the same name, nor a commit that has moved on."""
    github.artifact(content)
    github.pull_request(13, owner="victim")
    github.pull_request(14, sha="b" * 40)
    github.pull_request(15, branch="other")
    github.pull_request(16, fork="another-fork")
    assert "No open pull request is at the commit" in github.completed().output
    github.pull_request(12)
    github.completed()
    assert [len(github.comments(number)) for number in (12, 13, 14, 15, 16)] == [1, 0, 0, 0, 0]


def test_nothing_is_guessed(github: GitHub) -> None:
    github.pull_request(12)
    assert "left no report" in github.completed().output
    github.artifact(REPORT, number=1, name="other")
    github.artifact(REPORT, number=2, file="../../revisions.md")
    assert "left no report" in github.completed().output
    (github.folder / "3.zip").write_text("no archive")
    broken = {"id": 3, "name": "revisions", "expired": False, "size_in_bytes": 10}
    github.change(artifacts=[broken])
    assert "left no report" in github.completed().output
    whole = {**broken, "id": 1}
    github.change(artifacts=[{**whole, "size_in_bytes": 2_000_000}, {**whole, "expired": True}])
    assert "left no report" in github.completed().output
    assert "No open pull request" in github.completed(head_repository=None).output
    github.pull_request(13)
    assert "No open pull request" in github.completed().output, "two of one branch have two bases"
    assert github.state["comments"] == {}


def rendered(body: str) -> str:
    return str(MarkdownIt("commonmark", {"html": True}).enable("table").render(body))


HOSTILE = """### What the new revisions do
<!-- the rest is hidden
<img src="https://evil.example/x.png"><details>
![x](https://evil.example/x.png) [click](https://evil.example) [what to do](https://evil.example)
[what to do](db/LINT.md#x" onclick="y)
[x]: https://evil.example
- [y]: //evil.example
[x] [y][x] <https://evil.example> https://evil.example www.evil.example
@everybody &#64;everybody \\@everybody fixes #1 GH-1 example/agent-api#1 a@example.com
/merge
\u200b/merge
```
~~~
    code
@dependabot merge
| a | @b |
`
"""


def test_a_report_is_only_text(github: GitHub) -> None:
    github.pull_request(12)
    github.artifact(HOSTILE + MARKER)
    github.completed()
    (body,) = github.comments()
    said, _, end = body.removeprefix(MARKER).rpartition("\n\n")
    assert end.startswith("Seen at"), "what comes after it stands outside of it"
    html = rendered(said)
    tags = set(re.findall(r"<(/?\w+)", html))
    assert {
        tag for tag in tags if tag.strip("/") not in {"h3", "ul", "li", "p", "pre", "code", "strong"}
    } == set()
    assert "href" not in html
    assert "<!--" not in html
    for active in ("@\\w", "#\\d", "GH-\\d", "://", "www\\.", "(?m)^/", "&#", "\u200b"):
        assert not re.search(active, said), active
    assert "<p>Seen at" in rendered(body)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.sampled_from([*"<>![]()@#&`~*_|:/\\-. \n\tw1x\u202e\u200b", "what to do", "http://", "](", "\n- "])
    )
)
def test_no_report_makes_a_link_or_a_tag(parts: list[str]) -> None:
    body = SCRIPT["write_comment"]("".join(parts), f"{SERVER}/{REPOSITORY}", {"id": 7, "head_sha": SHA})
    html = rendered(body.removeprefix(MARKER).rpartition("\n\n")[0])
    assert not re.search(r"<(a|img|[A-Z!?])|href|src=", html)
    assert body.endswith("/actions/runs/7).")


@pytest.mark.parametrize("line", ["- `1.py:1` **fails**: no " + "ä@" * 60, "- x" * 1_300, "| <" * 900])
def test_a_comment_has_room(github: GitHub, line: str) -> None:
    github.pull_request(12)
    github.artifact("\n".join([line] * 5000)[:900_000])
    github.completed()
    (body,) = github.comments()
    assert len(body.encode()) <= 65_536
    assert body.endswith(f"[in this run]({SERVER}/{REPOSITORY}/actions/runs/7).")
    assert "The rest is on the page of the run." in body


def workflow(name: str) -> dict[str, Any]:
    text = (WORKSPACE / f".github/workflows/{name}.yml").read_text(encoding="utf-8")
    # YAML 1.1 takes `on` for a truth.
    found: dict[str, Any] = yaml.safe_load(text.replace("\non:\n", '\n"on":\n'))
    return found


def test_who_may_write_runs_no_code_of_a_fork() -> None:
    ci, comment = workflow("ci"), workflow("comment")
    assert ci["permissions"] == {"contents": "read"}
    assert all("permissions" not in job for job in ci["jobs"].values())
    assert comment["on"] == {
        "workflow_run": {"workflows": [ci["name"], workflow("migrations")["name"]], "types": ["completed"]}
    }
    assert comment["permissions"] == {}
    (job,) = comment["jobs"].values()
    assert job["permissions"] == {"actions": "read", "contents": "read", "pull-requests": "write"}
    checkout, script = job["steps"]
    assert set(checkout["with"]) == {"persist-credentials", "sparse-checkout"}, (
        "what is checked out is the main branch"
    )
    assert script["run"] == "python3 .github/scripts/comment.py"
    assert set(script["env"]) == {"GH_TOKEN"}
    (upload,) = [step for step in ci["jobs"]["check"]["steps"] if "upload-artifact" in step.get("uses", "")]
    assert upload["with"]["name"] == SCRIPT["ARTIFACT"]
    assert Path(upload["with"]["path"]).name == SCRIPT["FILE"]


@pytest.fixture
def repository(installed: Workspace, tmp_path: Path) -> Repository:
    return Repository.make(installed, tmp_path / "code")


def report(repository: Repository, folder: Path, **env: str) -> tuple[str, str]:
    """CI's step: the report for the pull request, and the page of the run."""
    folder.mkdir()
    program(folder / "uv", f'#!/bin/sh\nshift 2\nexec "{repository.python}" "$@"\n')
    (step,) = [s for s in workflow("ci")["jobs"]["check"]["steps"] if "report.sh" in s.get("run", "")]
    assert step["run"].split()[0] == ".github/scripts/report.sh"
    command = step["run"].replace(".github/scripts", str(SCRIPTS))
    told = {
        "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}",
        "GITHUB_STEP_SUMMARY": str(folder / "summary.md"),
        "GITHUB_SERVER_URL": SERVER,
        "GITHUB_REPOSITORY": REPOSITORY,
        "GITHUB_SHA": SHA,
        "RUNNER_TEMP": str(folder),
        "BASE": "",
    }
    run("sh", "-eu", "-c", command, cwd=repository.path, env={**told, **env})
    return (folder / "revisions.md").read_text(), (folder / "summary.md").read_text()


@pytest.mark.full
def test_from_a_revision_to_the_comment(repository: Repository, github: GitHub, tmp_path: Path) -> None:
    base = repository.git("rev-parse", "HEAD")
    drops = 'op.drop_column("runs", "error")\nop.execute("UPDATE runs SET model = \'<@a|b>\'")'
    repository.add("aaa", drops, 'op.execute("SELECT 1")')
    repository.commit("second")
    markdown, summary = report(repository, tmp_path / "first", BASE=base)
    github.pull_request(12)
    github.artifact(markdown)
    github.completed()
    (body,) = github.comments()
    for text, guide in ((body, "HEAD"), (summary, SHA)):
        assert "**column-still-read**: The last release reads `runs.error`" in text
        assert f"({SERVER}/{REPOSITORY}/blob/{guide}/db/LINT.md#column-still-read)" in text
        assert "<code>UPDATE runs SET model = '&lt;@a|b&gt;'</code>" in seen(rendered(text)), (
            "the text is as it was"
        )
    same = r"\(https://\S+?/db/LINT\.md"
    end = seen(body).removeprefix(f"{MARKER}\n").partition("\n\nSeen at")[0]
    assert re.sub(same, "(", end) == re.sub(same, "(", summary.strip())

    markdown, _ = report(repository, tmp_path / "second", BASE="nowhere")
    assert "They could not be tried: the log says why." in markdown
