""".github/workflows/update.yml by its scripts: an update becomes one pull request, on which nobody's commits get lost.

What isn't real: GitHub. A program of this test's stands for gh and keeps pull requests in a file; the server is a bare
repository.
"""

import json
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands import UV, Outcome, run
from tests.support.releases import change, commit, git, install
from tests.support.workspaces import Workspace

BRANCH = "update-the-template"
BOT = "41898282+github-actions[bot]@users.noreply.github.com"
GH = f"""#!{sys.executable}
import json, pathlib, sys
file = pathlib.Path(__file__).with_name("pulls.json")
pulls = json.loads(file.read_text()) if file.exists() else []
command, words = sys.argv[1:3], sys.argv[3:]
options = {{word: words[at + 1] for at, word in enumerate(words[:-1]) if word.startswith("--")}}
if command == ["pr", "list"]:
    assert options["--head"] == "{BRANCH}" and options["--state"] == "open"
    print("\\n".join(str(pull["number"]) for pull in pulls if pull["open"]))
elif command == ["pr", "create"]:
    pulls.append({{"number": len(pulls) + 1, "open": True, "draft": "--draft" in words, "base": options["--base"]}})
    pulls[-1] |= {{"title": options["--title"], "body": sys.stdin.read()}}
elif command == ["pr", "edit"]:
    (pull,) = [pull for pull in pulls if str(pull["number"]) == words[0]]
    pull |= {{"title": options["--title"], "body": sys.stdin.read()}}
else:
    assert command == ["auth", "setup-git"], sys.argv
file.write_text(json.dumps(pulls))
"""


@dataclass
class GitHub:
    """The repository on its server, and the runners of the workflow's jobs."""

    folder: Path

    @property
    def pulls(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads((self.folder / "bin/pulls.json").read_text())
        return found

    def clone(self, name: str) -> Workspace:
        shutil.rmtree(self.folder / name, ignore_errors=True)
        git(self.folder, "clone", "--quiet", "server.git", name)
        return Workspace(self.folder / name)

    def update(self, workspace: Workspace) -> tuple[Outcome, str]:
        """The first job: the outcome, and the state that it tells."""
        told = self.folder / "output"
        told.write_text("", encoding="utf-8")
        env = {
            "PATH": f"{UV.parent}{os.pathsep}{os.environ['PATH']}",
            "UV": str(UV),
            "GITHUB_OUTPUT": str(told),
        }
        outcome = run(
            ".github/scripts/update.sh",
            "",
            self.folder / "update",
            cwd=workspace.path,
            env=env,
            check=False,
            timeout=900,
        )
        return outcome, told.read_text(encoding="utf-8").strip()

    def propose(self) -> str:
        """The second job, in a checkout of its own."""
        env = {"PATH": f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}", "BASE": "main"}
        script = Path(".github/scripts/propose.py")
        return run(
            sys.executable, script, self.folder / "update", cwd=self.clone("second").path, env=env
        ).output

    def tip(self, branch: str = BRANCH) -> str:
        return git(self.folder / "server.git", "rev-parse", branch).strip()


@pytest.fixture
def github(ours: Workspace, tmp_path: Path) -> GitHub:
    git(tmp_path, "clone", "--quiet", "--bare", str(ours.path), "server.git")
    (tmp_path / "bin").mkdir()
    gh = tmp_path / "bin/gh"
    gh.write_text(GH, encoding="utf-8")
    gh.chmod(0o755)
    return GitHub(tmp_path)


@pytest.mark.full
def test_an_update_becomes_one_pull_request(github: GitHub) -> None:
    workspace = github.clone("first")
    install(workspace)
    outcome, state = github.update(workspace)
    assert (outcome.code, state) == (0, "state=updated"), outcome.output
    assert "Opened a pull request" in github.propose()
    (pull,) = github.pulls
    assert (pull["title"], pull["base"], pull["draft"]) == ("Update the template to v0.4.0", "main", False)
    for part in (
        "Rename the setting `OLD`",
        "Tests: ok",
        "What the new revisions do",
        "ADD COLUMN note",
        "Less is there.",
    ):
        assert part in pull["body"], part
    # A workflow can't change workflows: that part is for a person to apply.
    server = github.folder / "server.git"
    changed = git(server, "diff", "--name-only", "main", BRANCH).splitlines()
    assert "FEATURE.md" in changed
    assert not [name for name in changed if name.startswith(".github/workflows")]
    patch = pull["body"].partition("```diff\n")[2].partition("\n```")[0]
    assert "timeout-minutes: 16" in patch
    by_hand = github.clone("by-hand").path
    git(by_hand, "switch", "--quiet", BRANCH)
    run("git", "apply", "-", cwd=by_hand, stdin=patch + "\n")
    assert git(server, "log", "--format=%ae %cn", f"main..{BRANCH}").split()[0] == BOT

    # The same again changes nothing on the branch; a newer main does, and the pull request stays the one.
    tip = github.tip()
    assert "Renewed pull request 1" in github.propose()
    assert github.tip() == tip
    elsewhere = github.clone("elsewhere").path
    (elsewhere / "NEWS.md").write_text("News.\n", encoding="utf-8")
    commit(elsewhere, "News")
    git(elsewhere, "push", "--quiet", "origin", "main")
    git(elsewhere, "switch", "--quiet", "--create", "update")
    git(elsewhere, "-c", "user.email=" + BOT, "cherry-pick", f"origin/{BRANCH}")
    git(
        elsewhere,
        "bundle",
        "create",
        "--quiet",
        str(github.folder / "update/update.bundle"),
        "HEAD",
        "^HEAD^",
    )
    assert "Renewed pull request 1" in github.propose()
    assert github.tip() != tip
    assert git(server, "merge-base", "main", BRANCH).strip() == github.tip("main")

    # Somebody has mended it: that isn't lost.
    git(elsewhere, "fetch", "--quiet", "origin")
    git(elsewhere, "switch", "--quiet", "--create", "mended", f"origin/{BRANCH}")
    change(elsewhere, "NEWS.md", "News", "Good news")
    commit(elsewhere, "Mended")
    git(elsewhere, "push", "--quiet", "origin", f"mended:{BRANCH}")
    tip = github.tip()
    assert "has commits of others, so it stays" in github.propose()
    assert github.tip() == tip

    git(server, "update-ref", "refs/heads/main", BRANCH)
    workspace = github.clone("first")
    install(workspace)
    outcome, state = github.update(workspace)
    assert (outcome.code, state) == (0, "state=none"), outcome.output


@pytest.mark.full
def test_conflicts_and_failures(github: GitHub) -> None:
    """With conflicts it is a draft that lists them; what can't be begun fails, and proposes nothing."""
    workspace = github.clone("first")
    change(workspace.path, "example.env", "\n", "\n# Ours.\n")
    commit(workspace.path, "Ours")
    git(workspace.path, "push", "--quiet", "origin", "main")
    install(workspace)
    outcome, state = github.update(workspace)
    assert (outcome.code, state) == (0, "state=updated"), outcome.output
    github.propose()
    (pull,) = github.pulls
    assert pull["draft"] is True
    assert "example.env: changed here and there" in pull["body"]
    assert "<<<<<<<" in git(github.folder / "server.git", "show", f"{BRANCH}:example.env")
    git(workspace.path, "reset", "--hard", "--quiet", "origin/main")
    git(workspace.path, "rm", "--quiet", ".cruft.json")
    commit(workspace.path, "As from an archive")
    outcome, state = github.update(workspace)
    assert (outcome.code, state) == (1, "state=none")
    assert "There is no .cruft.json" in outcome.output
