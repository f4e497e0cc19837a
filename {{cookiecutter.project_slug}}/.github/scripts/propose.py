"""Open the pull request of an update, or renew it: one branch, which nobody else's commits get lost on.

Takes what update.sh has left in a folder: a commit, and what is to be said of it. Runs nothing of what the commit changes.
Needs git, and gh with GH_TOKEN; BASE is the branch that the pull request is for.
"""

import os
import subprocess
import sys
from pathlib import Path

BRANCH = "update-the-template"
BOT = "41898282+github-actions[bot]@users.noreply.github.com"
LIMIT = 65_536  # of a pull request's text, in characters; bytes are never fewer
# A token of Actions may not push changes of these: https://docs.github.com/actions/concepts/security/github_token
WORKFLOWS = ".github/workflows"
WORKFLOWS_BY_HAND = """### Workflows, to be changed by hand

A workflow may not change workflows, so these changes are not on this branch. To apply them: `git apply`, with this text as
its input.

```diff
{patch}
```
"""


def main(folder: Path) -> str:
    """Push and propose, and return what was done, for the log."""
    base = run("git", "rev-parse", "HEAD").strip()
    run("git", "fetch", "--quiet", str(folder / "update.bundle"), "HEAD")
    run("git", "switch", "--quiet", "--force-create", BRANCH, "FETCH_HEAD")
    title = run("git", "log", "-1", "--format=%s").strip()
    report = (folder / "update.md").read_text(encoding="utf-8", errors="replace")
    patch = run("git", "diff", "--no-color", base, BRANCH, "--", WORKFLOWS)
    if patch:
        leave_out_workflows(base)
        report += "\n" + WORKFLOWS_BY_HAND.format(patch=patch)

    there = run("git", "ls-remote", "origin", f"refs/heads/{BRANCH}").split()
    if there:
        run("git", "fetch", "--quiet", "origin", there[0])
        authors = run("git", "log", "--format=%ae", f"{base}..{there[0]}").splitlines()
        if set(authors) - {BOT}:
            return f"The branch {BRANCH} has commits of others, so it stays as it is. Merge it, or delete it."
    if not there or run("git", "rev-parse", f"{there[0]}^{{tree}}") != run("git", "rev-parse", "HEAD^{tree}"):
        # The token is asked for as it is needed, and stays nowhere.
        run("gh", "auth", "setup-git")
        lease = f"--force-with-lease=refs/heads/{BRANCH}:{there[0] if there else ''}"
        run("git", "push", "--quiet", lease, "origin", f"{BRANCH}:refs/heads/{BRANCH}")
    return propose(title, report, is_draft="### Conflicts" in report)


def leave_out_workflows(base: str) -> None:
    """Take the changes of workflows out of the commit."""
    run("git", "rm", "-r", "--quiet", "--ignore-unmatch", "--", WORKFLOWS)
    if run("git", "ls-tree", base, WORKFLOWS):
        run("git", "checkout", "--quiet", base, "--", WORKFLOWS)
    name = BOT.partition("+")[2].partition("@")[0]
    run(
        *("git", "-c", f"user.name={name}", "-c", f"user.email={BOT}"),
        *("commit", "--quiet", "--no-verify", "--allow-empty", "--amend", "--no-edit"),
    )


def propose(title: str, report: str, *, is_draft: bool) -> str:
    """Open the pull request, or write its text anew."""
    note = "\n*The branch is this workflow's until you push to it. To run the other workflows, close and reopen this.*\n"
    body = cut(report, LIMIT - len(note.encode())) + note
    found = run(
        "gh", "pr", "list", "--head", BRANCH, "--state", "open", "--json", "number", "--jq", ".[].number"
    )
    if found.split():
        number = found.split()[0]
        run("gh", "pr", "edit", number, "--title", title, "--body-file", "-", given=body)
        return f"Renewed pull request {number}."
    draft = ["--draft"] if is_draft else []
    base = os.environ["BASE"]
    run(
        "gh",
        "pr",
        "create",
        "--head",
        BRANCH,
        "--base",
        base,
        "--title",
        title,
        "--body-file",
        "-",
        *draft,
        given=body,
    )
    return "Opened a pull request."


def cut(text: str, most: int) -> str:
    """Cut a text at the end of a line, and close the block of code that is cut through."""
    if len(text.encode()) <= most:
        return text
    room = text.encode()[: most - 100].decode("utf-8", "ignore").rpartition("\n")[0]
    fence = "\n```" if room.count("\n```") % 2 else ""
    return f"{room}{fence}\n\n… the rest is in the log of this run.\n"


def run(*command: str, given: str = "") -> str:
    """Run a program and return what it prints."""
    done = subprocess.run(  # noqa: S603
        command, input=given, stdout=subprocess.PIPE, text=True, encoding="utf-8", check=True
    )
    return done.stdout


if __name__ == "__main__":
    print(main(Path(sys.argv[1])))  # noqa: T201
