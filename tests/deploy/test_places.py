"""deploy/: which answers bring it, and what its documents say."""

import os
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from tests.support.command_blocks import Block, broken_links, check_command, read_blocks
from tests.support.places import COMPOSE, KUBERNETES, names_of, secrets_of
from tests.support.workspaces import Workspace


@pytest.mark.parametrize("answers", [{"use_single_machine": True}, {"use_kubernetes": True}, {}])
def test_an_answer_brings_a_folder(answers: dict[str, bool], bake: Callable[..., Workspace]) -> None:
    workspace = bake(**answers)
    there = {path.name for path in workspace.path.glob("deploy/*")}
    assert there == {name for name in ("compose", "kubernetes") if answers.get(ANSWER_OF[name])}
    assert (workspace.path / "deploy").exists() is bool(answers)
    assert (
        list(broken_links(workspace.path, [path for path in workspace.files() if path.suffix == ".md"])) == []
    )


ANSWER_OF = {"compose": "use_single_machine", "kubernetes": "use_kubernetes"}


# Documents


@pytest.mark.full
def test_commands_of_the_documents_name_what_exists(
    places: Workspace, installed: Workspace, tmp_path: Path
) -> None:
    """They need Docker or a cluster, so none of them is run; what they do is tested in pieces."""
    workspace = Workspace(Path(shutil.copytree(places.path, tmp_path / "workspace")))
    (workspace.path / ".venv").symlink_to(installed.path / ".venv")
    for folder, check in ((COMPOSE, check_compose_command), (KUBERNETES, check_kubectl_command)):
        document = f"{folder}/README.md"
        assert list(broken_links(workspace.path, [workspace.path / document])) == []
        blocks = [block for block in read_blocks(workspace.read(document), document) if block.is_commands]
        commands = [words for block in blocks for words in commands_of(block)]
        assert len(commands) > 12
        inline = re.findall(r"`((?:docker compose|kubectl) [^`]+)`", workspace.read(document))
        assert inline
        for words in [*commands, *map(shlex.split, inline)]:
            check(workspace, words)


@pytest.mark.full
def test_commands_that_name_what_does_not_exist_are_seen(
    places: Workspace, installed: Workspace, tmp_path: Path
) -> None:
    workspace = Workspace(Path(shutil.copytree(places.path, tmp_path / "workspace")))
    (workspace.path / ".venv").symlink_to(installed.path / ".venv")
    wrong = {
        check_compose_command: (
            "chmod a+r Caddyfile nothing.sql",
            "cp nothing.env .env",
            "cp example.env app.env",
            "docker compose exec app alembic -c db/alembic.ini currant",
            "docker compose exec app python -m chassis keys make Somebody",
            "docker compose up --detach server",
        ),
        check_kubectl_command: (
            "SECRETS=secrets",
            "kubectl create secret generic model-key --from-env-file model.env",
            "kubectl exec deployment/app -- alembic -c alembic.ini current",
            "kubectl delete job migration",
            "./deploy.sh dev",
        ),
    }
    for check, commands in wrong.items():
        for command in commands:
            with pytest.raises(AssertionError):
                check(workspace, shlex.split(command))


def commands_of(block: Block) -> Iterator[list[str]]:
    assert block.reason, f"{block.where} is neither run nor marked"
    for line in block.commands.splitlines():
        for command in line.split(" | "):
            yield shlex.split(command)


def check_compose_command(workspace: Workspace, words: list[str]) -> None:
    folder = workspace.path / COMPOSE
    services = yaml.safe_load((folder / "compose.yaml").read_text(encoding="utf-8"))["services"]
    if words[0] == "docker" and words[1] == "compose":
        verb, rest = words[2], [word for word in words[3:] if not word.startswith("--")]
        assert verb in {"up", "down", "pull", "exec", "stop", "ps", "logs"}, words
        if verb == "exec":
            assert rest[0] in services, words
            check_in_container(workspace, rest[1:])
        else:
            assert set(rest) <= set(services), words
    elif words[0].startswith("./"):
        assert os.access(folder / words[0], os.X_OK), words
    elif words[0] == "cd":
        assert (workspace.path / words[1]).is_dir(), words
    elif words[0] == "cp":
        assert (folder / words[1]).is_file(), words
        assert words[2:] == [".env"], words
    elif words[0] == "chmod":
        assert all((folder / name).is_file() or name == ".env" for name in words[2:]), words
    else:
        assert words[:2] == ["docker", "build"], words


def check_kubectl_command(workspace: Workspace, words: list[str]) -> None:
    folder = workspace.path / KUBERNETES
    resources = [item for path in folder.glob("base/*.yaml") for item in yaml.safe_load_all(path.read_text())]
    known = {f"{item['kind'].lower()}/{item['metadata']['name']}" for item in resources if "metadata" in item}
    if words[0].startswith("SECRETS="):
        assert words[0].startswith("SECRETS=~/"), "outside of the repository"
        return
    if words[0] == "./deploy.sh":
        assert os.access(folder / "deploy.sh", os.X_OK), words
        assert (folder / "overlays" / words[1]).is_dir(), words
        return
    assert words[0] == "kubectl", words
    for word in words:
        if re.fullmatch(r"(job|deployment)/\w+", word):
            assert word in known, words
    if "exec" in words and "--" in words:
        check_in_container(workspace, words[words.index("--") + 1 :])
    if "-k" in words:
        assert (folder / words[words.index("-k") + 1] / "kustomization.yaml").is_file(), words
    if words[1:3] == ["create", "namespace"]:
        assert words[3] == names_of(workspace)["Names"].of("prd").service, words
    if words[1:4] == ["create", "secret", "generic"]:
        assert words[4] in secrets_of(resources), words
        assert words[words.index("--from-env-file") + 1].startswith("$SECRETS/"), words
    if words[1] == "delete":
        assert "/".join(words[2:4]) in known, words


def check_in_container(workspace: Workspace, words: list[str]) -> None:
    if words[0] not in {"sh", "psql", "createdb", "dropdb"}:
        check_command(words, workspace.path)
