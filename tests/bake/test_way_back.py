"""After a failure, one printed command bakes again with this bake's answers, however the template was reached."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.belongings import look, write
from tests.support.commands import Outcome, run
from tests.support.workspaces import TEMPLATE_FOLDER, Workspace, cookiecutter, copy_of_template

ANSWERS = {
    "project_name": "Zoë’s {{braces}} {% raw %}API",
    "project_slug": "come-back",
    "author": 'O\'Brien & "Söhne"',
    "description": "$HOME 100% `x`",
    "license": "Apache-2.0",
    "use_ecs": "no",
    "init_git": "no",
}
PLAIN = ANSWERS | {"project_name": "Zoë’s {braces} API"}
BROKEN = "broken: this is no TOML\n"


def spoil(template: Path) -> None:
    """Let the install fail at once."""
    project = template / TEMPLATE_FOLDER / "pyproject.toml"
    project.write_text(BROKEN + project.read_text())


def mend(template: Path) -> None:
    """Let it bake without installing, for speed: what counts is the other answers."""
    project = template / TEMPLATE_FOLDER / "pyproject.toml"
    project.write_text(project.read_text().removeprefix(BROKEN))
    hook = template / "hooks/post_gen_project.py"
    hook.write_text(
        hook.read_text().replace("notes = Notes(", 'ANSWERS["install"] = False\n    notes = Notes(', 1)
    )


def printed(outcome: Outcome) -> list[str]:
    return re.findall(r"^  (.+)$", outcome.output.partition("Your answers are kept.")[2], re.MULTILINE)


def type_again(line: str, cwd: Path) -> Outcome:
    """Run a printed command from another folder; the program is the one that runs the tests."""
    words = shlex.split(line)
    assert shutil.which(words[0]), "the command isn't there to be run"
    tool = next(word for word in words if word in {"cookiecutter", "cruft"})
    return run(sys.executable, "-m", tool, *words[words.index(tool) + 1 :], cwd=cwd, check=False)


def repository(folder: Path) -> None:
    run("git", "init", "--quiet", cwd=folder)
    run("git", "add", "--all", cwd=folder)
    run("git", "commit", "--quiet", "-m", "One", cwd=folder)


def with_cookiecutter(
    *options: str, cwd: str = ".", template: str = "{template}"
) -> Callable[[Path], Outcome]:
    def bake(place: Path) -> Outcome:
        return run(
            *(sys.executable, "-m", "cookiecutter", "--no-input", "-o", str(place / "output")),
            *(option.format(place=place) for option in options),
            template.format(template=place / "template", place=place),
            *(f"{name}={value}" for name, value in PLAIN.items()),
            cwd=place / cwd,
            env={"PWD": str(place / cwd)},
            check=False,
        )

    return bake


def with_a_link(place: Path) -> Outcome:
    (place / "shortcut").symlink_to(place / "template")
    return with_cookiecutter(template="{place}/shortcut")(place)


def with_directory(place: Path) -> Outcome:
    (place / "several/deeper").mkdir(parents=True)
    (place / "several/deeper/agent").symlink_to(place / "template")
    shutil.copytree(place / "template", place / "copies/deeper/agent")
    shutil.rmtree(place / "template")
    (place / "template").symlink_to(place / "copies/deeper/agent")
    return with_cookiecutter("--directory", "deeper/agent", template="{place}/copies")(place)


def with_config_file(place: Path) -> Outcome:
    write(place, {"config.yaml": f"replay_dir: {place}/replays\ndefault_context:\n  email: x@example.org\n"})
    return with_cookiecutter("--config-file", "{place}/config.yaml")(place)


def with_a_replay_file(place: Path) -> Outcome:
    """Answers of another bake in Cookiecutter's own file, and this bake's from a file."""
    (place / "home").mkdir()
    mine = place / "my.answers.json"
    cookiecutter(place / "elsewhere", {**PLAIN, "install": "no"}, template=place / "template", check=False)
    (kept,) = (Path.home() / ".cookiecutter_replay").glob("template.json")
    context = json.loads(kept.read_text())
    context["cookiecutter"]["install"] = True
    mine.write_text(json.dumps(context))
    cookiecutter(
        place / "elsewhere",
        {"project_slug": "other", "install": "no"},
        template=place / "template",
        check=False,
    )
    options = ("--replay-file", str(mine), "-o", str(place / "output"))
    return run(sys.executable, "-m", "cookiecutter", *options, place / "template", cwd=place, check=False)


def with_cruft(place: Path) -> Outcome:
    repository(place / "template")
    answers = PLAIN | {"project_name": "Zoë’s {braces} API"}
    context = json.dumps(answers | {"use_ecs": False, "init_git": False})
    (place / "output").mkdir()
    return run(
        *(sys.executable, "-m", "cruft", "create", "--no-input", "--output-dir", place / "output"),
        *("--extra-context", context, place / "template"),
        cwd=place,
        check=False,
    )


def over_mine(place: Path) -> Outcome:
    write(place / "output/come-back", {"mine.txt": "mine", "README.md": "mine"})
    return with_cookiecutter("--overwrite-if-exists")(place)


def around_mine(place: Path) -> Outcome:
    write(place / "output/come-back", {"mine.txt": "mine", "README.md": "mine"})
    return with_cookiecutter("-f", "-s")(place)


WAYS = {
    "absolute": with_cookiecutter(),
    "relative": with_cookiecutter(cwd="deep/er", template="../../template"),
    "here": with_cookiecutter(cwd="template", template="."),
    "link": with_a_link,
    "directory": with_directory,
    "config-file": with_config_file,
    "default-config": with_cookiecutter("--default-config"),
    "replay-file": with_a_replay_file,
    "cruft": with_cruft,
    "overwrite": over_mine,
    "skip": around_mine,
}


@pytest.mark.parametrize("way", WAYS)
def test_the_printed_command_bakes_with_the_same_answers(tmp_path: Path, way: str) -> None:
    template = copy_of_template(tmp_path / "template")
    (tmp_path / "deep/er").mkdir(parents=True)
    (tmp_path / "cwd").mkdir()
    spoil(template)
    failed = WAYS[way](tmp_path)
    assert failed.code == 1, failed.output
    assert "FAILED  " in failed.output
    folder = tmp_path / "output/come-back"
    mine = {"overwrite", "skip"}
    assert folder.exists() is (way in mine)
    # Another bake in between changes nothing.
    cookiecutter(tmp_path / "between", {"install": "no"}, template=template, check=False)

    mend(tmp_path / "template")
    if way == "cruft":
        run("git", "commit", "--quiet", "--all", "-m", "Mended", cwd=tmp_path / "template")
    again, *_ = printed(failed)
    outcome = type_again(again, tmp_path / "cwd")
    assert outcome.code == 0, f"{again}\n{outcome.output}"
    text = Workspace(folder).read("pyproject.toml")
    assert 'name = "come-back"' in text
    assert "$HOME 100% `x`" in text
    assert 'license = "Apache-2.0"' in text
    assert "O'Brien" in text
    assert not (folder / "infra").exists()
    if way == "config-file":
        assert "x@example.org" in text
    assert (
        Workspace(folder)
        .read("README.md")
        .startswith("mine" if way == "skip" else "# Zoë’s \\{braces\\} API")
    )
    if way in mine:
        assert (folder / "mine.txt").read_text() == "mine"
    # It has come through, so its answers need no keeping.
    assert list((Path.home() / ".cookiecutter_replay").glob("come-back-*")) == []


def test_the_other_printed_command_keeps_the_folder(tmp_path: Path) -> None:
    template = copy_of_template(tmp_path / "template")
    spoil(template)
    failed = with_cookiecutter()(tmp_path)
    _, keep, go, repeat = printed(failed)[:4]
    outcome = type_again(keep, tmp_path)
    assert outcome.code == 1
    folder = tmp_path / "output/come-back"
    assert shlex.split(go) == ["cd", str(folder)]
    assert (folder / "pyproject.toml").exists()
    assert not (folder / ".bake").exists()
    again = subprocess.run(["sh", "-c", repeat], cwd=folder, capture_output=True, text=True, check=False)
    assert again.returncode != 0
    assert "TOML" in again.stderr


@pytest.mark.full
def test_without_a_home_the_answers_are_kept_elsewhere(tmp_path: Path) -> None:
    template = copy_of_template(tmp_path / "template")
    spoil(template)
    write(tmp_path, {"home": "a file, not a folder"})
    config = tmp_path / "config.yaml"
    config.write_text(f"replay_dir: {tmp_path}/replays\ncookiecutters_dir: {tmp_path}/cookiecutters\n")
    failed = cookiecutter(
        tmp_path / "output",
        PLAIN,
        template=template,
        options=("--no-input", "--config-file", str(config)),
        env={"HOME": str(tmp_path / "home")},
    )
    assert failed.code == 1
    again, *_ = printed(failed)
    mend(template)
    outcome = type_again(again, tmp_path)
    assert outcome.code == 0, f"{again}\n{outcome.output}"
    assert look(tmp_path / "output")
