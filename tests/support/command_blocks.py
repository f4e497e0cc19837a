"""The command blocks of a Markdown file: found, run in order in a real shell, or checked by name.

- A block of commands (sh, bash, console) is run. Where it can't be, a comment directly above it says
  why: `<!-- not run by tests: needs a Docker engine -->`. Then its names are checked instead.
- A block of code whose first line is a comment with a path (`# db/tables/tickets.py`) is written to
  that file. A path with a `*` stands for the one file that it matches: its functions of the same
  names are replaced, and the imports are added.
- Other blocks of Python must at least be Python.
"""

from __future__ import annotations

import ast
import os
import queue
import re
import runpy
import shlex
import signal
import socket
import subprocess
import tempfile
import threading
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import yaml

COMMANDS = {"sh", "bash", "shell", "console"}
FENCE = re.compile(r"^(?P<indent> *)(?P<fence>```+)(?P<language>[\w-]*)\s*$")
MARK = re.compile(r"^\s*<!-- not run by tests: (?P<reason>\S.*\S) -->\s*$")
FILE = re.compile(r"^# (?P<path>[\w.*-]+(?:/[\w.*-]+)+)$")
SERVER = re.compile(r"\b(uvicorn|make serve)\b")
DEFAULT_PORT = 8000


@dataclass(frozen=True)
class Block:
    """A fenced block: where it stands, what is in it, and why it isn't run, if so."""

    document: str
    line: int
    heading: str
    language: str
    text: str
    reason: str | None

    @property
    def where(self) -> str:
        return f"{self.document}:{self.line} ({self.heading})"

    @property
    def is_commands(self) -> bool:
        return self.language in COMMANDS

    @property
    def commands(self) -> str:
        """What to hand to a shell. In a console block that is what follows the prompts."""
        if self.language != "console":
            return self.text
        return "".join(f"{line[2:]}\n" for line in self.text.splitlines() if line.startswith("$ "))

    @property
    def path(self) -> str | None:
        """The file that the block is the text of, from its first line."""
        first = FILE.match(self.text.partition("\n")[0])
        return first["path"] if first and not self.is_commands else None


def read_blocks(markdown: str, document: str) -> list[Block]:
    """Find the fenced blocks of a text in Markdown, in their order."""
    blocks: list[Block] = []
    heading, above = "", ""
    lines = iter(enumerate(markdown.splitlines(), start=1))
    for number, line in lines:
        if opening := FENCE.match(line):
            indent, text = opening["indent"], []
            for _, inner in lines:
                if inner.strip() == opening["fence"]:
                    break
                text.append(inner.removeprefix(indent))
            else:
                raise AssertionError(f"{document}:{number}: the block is never closed")
            mark = MARK.match(above)
            body = "".join(f"{line}\n" for line in text)
            reason = mark["reason"] if mark else None
            blocks.append(Block(document, number, heading, opening["language"], body, reason))
        elif line.startswith("#"):
            heading = line.lstrip("#").strip()
        above = line
    return blocks


class Shell:
    """A bash that stays open from block to block, so that variables and folders last as in a terminal."""

    def __init__(self, cwd: Path, env: Mapping[str, str], scratch: Path) -> None:
        self.port = _free_port()
        (scratch / ".curlrc").write_text("silent\nshow-error\nfail-with-body\n", encoding="utf-8")
        self._scratch = scratch
        self._log = scratch / "server.log"
        self._log.touch()
        self._process = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            cwd=cwd,
            # A port of its own, since the usual one may be taken; curl fails where the answer is an error.
            env={**env, "UVICORN_PORT": str(self.port), "CURL_HOME": str(scratch)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            start_new_session=True,
        )
        self._lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        self.run("set -euo pipefail")

    def __enter__(self) -> Shell:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def run(self, commands: str, where: str = "", timeout: float = 120) -> str:
        """Run commands and return what they printed.

        Raises:
            AssertionError: where one failed or they took longer than `timeout`, in seconds.
        """
        commands = re.sub(rf"\b(localhost|127\.0\.0\.1):{DEFAULT_PORT}\b", rf"\1:{self.port}", commands)
        lines = commands.rstrip().splitlines()
        if lines and SERVER.search(lines[-1]):
            before = self.run("\n".join(lines[:-1]), where, timeout)
            self._serve(lines[-1], where)
            return before
        return self._source(commands, where, timeout)

    def stop_servers(self) -> None:
        """Stop the servers that blocks have started, and wait until they have ended."""
        self._source('for job in $(jobs -p); do kill "$job" || true; done; wait', "stopping the server", 30)

    def close(self) -> None:
        """End the shell and all that it started."""
        for end in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self._process.pid, end)
                for _ in range(100):
                    self._process.poll()
                    os.killpg(self._process.pid, 0)
                    time.sleep(0.1)
            except ProcessLookupError:
                break
        self._process.wait()

    def _source(self, commands: str, where: str, timeout: float) -> str:
        script = self._scratch / "block.sh"
        script.write_text(commands, encoding="utf-8")
        done = f"--- done {time.monotonic_ns()}"
        # With errexit the shell ends here where a command fails.
        self._send(f"source {shlex.quote(str(script))} </dev/null\necho\necho {shlex.quote(done)}\n")
        printed: list[str] = []
        deadline = time.monotonic() + timeout
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise AssertionError(
                    f"{where}: not done after {timeout:.0f} s\n{commands}\n{''.join(printed)}"
                ) from None
            if line is None:
                raise AssertionError(
                    f"{where}: failed with code {self._process.wait()}\n{commands}\n{''.join(printed)}"
                )
            if line.strip() == done:
                return "".join(printed)
            printed.append(line)

    def _serve(self, command: str, where: str) -> None:
        self._source(f"exec {command} >{shlex.quote(str(self._log))} 2>&1 &\nserver=$!\n", where, 10)
        for _ in range(300):
            with socket.socket() as client:
                if client.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            try:
                self._source('kill -0 "$server"', where, 10)
            except AssertionError:
                break
            time.sleep(0.1)
        raise AssertionError(f"{where}: nothing serves on the port\n{command}\n{self._log.read_text()}")

    def _send(self, text: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(text)
        self._process.stdin.flush()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put(None)


def run_blocks(
    blocks: Sequence[Block],
    cwd: Path,
    env: Mapping[str, str],
    prepare: Mapping[str, Callable[[], None]] | None = None,
    *,
    keep_serving: bool = False,
) -> dict[str, str]:
    """Run the blocks in order, and check those that are marked as not to be run.

    Args:
        blocks: from `read_blocks`.
        cwd: the folder to start in, which holds what the commands name.
        env: the environment of the shell.
        prepare: for a heading, what must happen before the first block below it.
        keep_serving: whether a server goes on below the next heading.

    Returns:
        For each heading, what the commands below it printed.

    Raises:
        AssertionError: where a block fails, or names what doesn't exist.
    """
    printed: dict[str, str] = {}
    prepare = dict(prepare or {})
    with tempfile.TemporaryDirectory() as scratch, Shell(cwd, env, Path(scratch)) as shell:
        section = ""
        for block in blocks:
            if block.heading != section:
                if not keep_serving:
                    shell.stop_servers()
                section = block.heading
                if first := prepare.pop(section, None):
                    first()
            if block.path is not None:
                write_file(block, cwd)
            elif block.is_commands and block.reason is None:
                output = shell.run(block.commands, block.where)
                printed[section] = printed.get(section, "") + output
            elif block.is_commands:
                check_names(block, cwd)
            elif block.language == "python":
                ast.parse(block.text, block.where)
    assert not prepare, f"no block stands under {', '.join(prepare)}"
    return printed


def write_file(block: Block, cwd: Path) -> None:
    """Write the block to the file that its first line names, or into the one that its pattern matches."""
    assert block.path is not None
    body = block.text.partition("\n")[2]
    if "*" not in block.path:
        (cwd / block.path).write_text(body, encoding="utf-8")
        return
    matching = list(cwd.glob(block.path))
    assert len(matching) == 1, f"{block.where}: {block.path} matches {len(matching)} files"
    text = matching[0].read_text(encoding="utf-8")
    imports = []
    for node in ast.parse(body).body:
        source = ast.get_source_segment(body, node) or ""
        if isinstance(node, ast.FunctionDef):
            there = {item.name: item for item in ast.parse(text).body if isinstance(item, ast.FunctionDef)}
            assert node.name in there, f"{block.where}: {matching[0].name} has no {node.name}()"
            text = text.replace(ast.get_source_segment(text, there[node.name]) or "", source)
        else:
            imports.append(source)
    there_already = [node for node in ast.parse(text).body if isinstance(node, ast.Import | ast.ImportFrom)]
    last = max(
        (node.end_lineno or 0 for node in there_already), default=ast.parse(text).body[0].end_lineno or 0
    )
    missing = [f"{line}\n" for line in imports if line not in text]
    lines = text.splitlines(keepends=True)
    # After those of the standard library, which are all that an empty revision has.
    lines[last:last] = ["\n", *missing] if missing else []
    matching[0].write_text("".join(lines), encoding="utf-8")


# Programs of which the blocks may say what they like, as their arguments name nothing of the workspace.
GENERAL = {"git", "gh", "pip", "python3", "sh", "curl"}


def check_names(block: Block, workspace: Path) -> None:
    """Check that what the block's commands name exists: files, containers, options of Alembic, and so on.

    Raises:
        AssertionError: naming what doesn't exist, or a program of which nothing is known here.
    """
    variables: dict[str, str] = {}
    makes_a_workspace = False
    for line in re.sub(r"\\\n\s*", "", block.commands).splitlines():
        if assignment := re.match(r"(\w+)=(\$\((.*)\)|\S*)$", line):
            variables[assignment[1]] = assignment[2]
            line = assignment[3] or ""
        for command in line.split(" && "):
            words = shlex.split(command, comments=True)
            if makes_a_workspace and words[:1] == ["cd"]:
                return  # what follows is for the new workspace: tests/bake/test_updates.py runs it
            if not words:
                continue
            makes_a_workspace |= words[0] == "uvx"
            try:
                _check(words, workspace, variables)
            except AssertionError as error:
                raise AssertionError(f"{block.where}: {command}\n{error}") from error


def check_command(words: list[str], workspace: Path) -> None:
    """Check one command like those of a block, without variables."""
    _check(words, workspace, {})


def _check(words: list[str], workspace: Path, variables: Mapping[str, str]) -> None:
    program, rest = words[0], words[1:]
    if program == "alembic":
        _check_alembic(rest, workspace)
    elif program == "docker":
        _check_docker(rest, workspace, variables)
    elif program == "aws":
        _check_aws(rest, workspace, variables)
    elif program == "uv" and rest[:1] == ["run"]:
        rest = rest[1:]
        if rest[0] == "--group":
            project = tomllib.loads((workspace / "pyproject.toml").read_text(encoding="utf-8"))
            assert rest[1] in project["dependency-groups"], f"there is no group {rest[1]}"
            rest = rest[2:]
        if rest[0] == "--env-file":
            assert (
                (workspace / "example.env").is_file()
                if rest[1] == ".env"
                else (workspace / rest[1]).is_file()
            )
            rest = rest[2:]
        _check(rest, workspace, variables)
    elif program == "uv":
        assert rest[0] in {"sync", "lock", "add"}, f"uv {rest[0]} is not known here"
    elif program in {"uvx", "cruft", "cookiecutter"}:
        subcommand = rest[1] if program == "uvx" and rest[0] == "cruft" else rest[0]
        known = {"create", "link", "update", "diff", "check"}
        assert "cruft" not in {program, rest[0]} or subcommand in known, f"cruft has no {subcommand}"
    elif program == "uvicorn":
        module, _, name = rest[0].partition(":")
        source = (workspace / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8")
        assert re.search(rf"^\s*{name}\b.* = ", source, re.MULTILINE), f"{module} has no {name}"
    elif program == "python":
        if rest[0] == "-m" and rest[1] != "pip":
            path = workspace / rest[1].replace(".", "/")
            assert path.with_suffix(".py").is_file() or path.is_dir(), f"there is no module {rest[1]}"
            if rest[1] == "chassis":
                _check_chassis(rest[2:], workspace)
    elif program == "cd":
        assert (workspace / rest[0]).is_dir(), f"there is no folder {rest[0]}"
    elif program == "zsh":
        dockerfile = (workspace / "Dockerfile").read_text(encoding="utf-8")
        assert re.search(r"install .*\bzsh\b", dockerfile), "the image has no zsh"
    elif program == "make":
        makefile = (workspace / "Makefile").read_text(encoding="utf-8")
        assert re.search(rf"^{rest[0]}:", makefile, re.MULTILINE), f"the Makefile has no {rest[0]}"
    elif program.startswith(("infra/deliver/", "./deliver/")):
        script = workspace / "infra" / program.removeprefix("infra/")
        assert os.access(script, os.X_OK), f"there is no script {program}"
        usage = re.search(r'^usage \$# (\d+) "?(\w+)', script.read_text(encoding="utf-8"), re.MULTILINE)
        assert usage, f"{program} doesn't say how it is called"
        assert len(rest) == int(usage[1]), f"{program} takes {usage[1]} arguments"
        assert usage[2] != "ENVIRONMENT" or rest[0] in {"stg", "prd"}, f"there is no {rest[0]}"
    elif program == ".":
        assert rest == [".venv/bin/activate"], f"there is no {rest[0]}"
    else:
        assert program in GENERAL, f"{program!r} is not known to tests/support/command_blocks.py"


def _check_alembic(arguments: list[str], workspace: Path) -> None:
    if "init" not in arguments:
        assert arguments[0] == "-c", "-c db/alembic.ini is missing"
        assert (workspace / arguments[1]).is_file(), f"there is no {arguments[1]}"
    _parse("alembic.config", "CommandLine().parser", arguments, workspace)


def _check_chassis(arguments: list[str], workspace: Path) -> None:
    """See that the chassis has the command, in a workspace of these answers."""
    listed = subprocess.run(
        [workspace / ".venv/bin/python", "-m", "chassis"],
        cwd=workspace,
        capture_output=True,
        text=True,
        check=True,
    )
    command, *rest = arguments or ["--help"]
    assert command == "--help" or re.search(rf"^  {command} ", listed.stdout, re.MULTILINE), (
        f"python -m chassis has no {command}"
    )
    if command == "keys":
        _parse("chassis.keys.command", "_parser()", rest, workspace)


def _parse(module: str, parser: str, arguments: list[str], workspace: Path) -> None:
    """Let the program's own parser read the arguments."""
    code = f"import sys, {module} as module; module.{parser}.parse_args(sys.argv[1:])"
    python = workspace / ".venv/bin/python"
    parsed = subprocess.run(
        [python, "-c", code, *arguments], cwd=workspace, capture_output=True, text=True, check=False
    )
    assert parsed.returncode == 0, parsed.stderr


def _check_docker(arguments: list[str], workspace: Path, variables: Mapping[str, str]) -> None:
    words = [word for word in arguments if not word.startswith("-")]
    services = yaml.safe_load((workspace / "compose.yaml").read_text(encoding="utf-8"))["services"]
    if words[0] == "exec":
        containers = {service.get("container_name") for service in services.values()}
        assert words[1] in containers, f"compose.yaml has no container {words[1]}"
        _check(arguments[arguments.index(words[1]) + 1 :], workspace, variables)
    elif words[0] == "compose":
        assert words[1] in {"up", "down", "build", "logs", "restart"}, (
            f"docker compose {words[1]} is not known here"
        )
        assert set(words[2:]) <= set(services), f"compose.yaml has no service {' '.join(words[2:])}"
    elif words[0] == "build":
        assert (workspace / "Dockerfile").is_file(), "there is no Dockerfile"
    else:
        assert words[0] in {"push", "pull", "login"}, f"docker {words[0]} is not known here"


def _check_aws(arguments: list[str], workspace: Path, variables: Mapping[str, str]) -> None:
    """Names that begin like ours must be ours. What stands for a name is looked up among the variables."""
    names = runpy.run_path(str(workspace / "infra/names.py"))
    known = {names["REPOSITORY"], names["REGISTRY_STACK"], names["DELIVERY_STACK"]}
    for environment in ("stg", "prd"):
        known |= set(asdict(names["Names"].of(environment)).values())
    for option, value in pairwise(arguments):
        value = variables.get(value.removeprefix("$"), value) if value.startswith("$") else value
        if option in NAMED or (option == "tail" and arguments[0] == "logs"):
            assert value in known, f"infra/names.py has no {value}"
        elif option == "--task":
            assert value, "the task is not set"
        elif option == "--template-file":
            stack = value.removeprefix("cdk.out/").removesuffix(".template.json")
            assert stack in known or (workspace / "infra" / value).is_file(), f"no stack writes {value}"
        elif option == "--command":
            _check(shlex.split(value), workspace, variables)


# Options of the AWS CLI that take a name.
NAMED = set(
    "--cluster --container --service --services --service-name --task-definition --stack-name --secret-id "
    "--repository-name --repository-names --source-db-instance-identifier".split()
)
HEADING = re.compile(r"^#+ +(?P<title>.+?)\s*$", re.MULTILINE)
LINK = re.compile(r"(?<!!)\[(?:[^\]\\]|\\.)*\]\((?P<target>[^)\s]+)\)")


def broken_links(root: Path, documents: Sequence[Path]) -> Iterator[str]:
    """Yield a sentence for each relative link whose file or heading doesn't exist."""
    for document in documents:
        for link in LINK.finditer(_prose(document)):
            target, _, anchor = link["target"].partition("#")
            if re.match(r"[a-z]+:", target):
                continue
            file = document.parent / target if target else document
            if not file.exists():
                yield f"{document.relative_to(root)} links to {target}, which doesn't exist"
            elif anchor and anchor not in _anchors(file):
                yield f"{document.relative_to(root)} links to {link['target']}, a heading that doesn't exist"


def _anchors(document: Path) -> set[str]:
    """The anchors that GitHub gives to headings: lower case, no punctuation, dashes for blanks."""
    titles = (heading["title"] for heading in HEADING.finditer(_prose(document)))
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def _prose(document: Path) -> str:
    """The text without its fenced blocks."""
    text = document.read_text(encoding="utf-8")
    return re.sub(r"^ *```.*?^ *```\s*$", "", text, flags=re.MULTILINE | re.DOTALL)


def _free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port: int = server.getsockname()[1]
        return port
