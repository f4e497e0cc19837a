"""Answers: what can't work is refused in one sentence, what is merely odd arrives unharmed everywhere."""

import json
import os
import re
import shutil
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml
from markdown_it import MarkdownIt

from tests.support.commands import ROOT, Outcome, at_terminal, run
from tests.support.marks import quick_are
from tests.support.workspaces import ODD_ANSWERS, QUESTIONS, Workspace, cookiecutter

SLUG_FORM = "lower-case letters a-z and digits, in words joined by single dashes, and starts with a letter"
TAKEN = "is the name of a module that the workspace imports"

# (question, answer, what the sentence must say)
REFUSED = [
    ("project_slug", "", "The slug is empty"),
    ("project_slug", "x", "two characters"),
    ("project_slug", "a" * 41, "has 41 characters: 40 are the most"),
    ("project_slug", "Agent-API", SLUG_FORM),
    ("project_slug", "agenten-für-alle", SLUG_FORM),
    ("project_slug", "агент", SLUG_FORM),
    ("project_slug", "agent api", SLUG_FORM),
    ("project_slug", "agent_api", SLUG_FORM),
    ("project_slug", "1agent", SLUG_FORM),
    ("project_slug", "-agent", SLUG_FORM),
    ("project_slug", "agent-", SLUG_FORM),
    ("project_slug", "agent--api", SLUG_FORM),
    ("project_slug", "../x", SLUG_FORM),
    ("project_slug", "a/b", SLUG_FORM),
    ("project_slug", "/tmp/x", SLUG_FORM),
    ("project_slug", "a\\b", SLUG_FORM),
    ("project_slug", "..", SLUG_FORM),
    ("project_slug", "a.b", SLUG_FORM),
    ("project_slug", "$(id)", SLUG_FORM),
    ("project_slug", "a\nb", SLUG_FORM),
    ("project_slug", "class", "is a word of the Python language"),
    ("project_slug", "match", "is a word of the Python language"),
    ("project_slug", "on", "means true, false or nothing in YAML"),
    ("project_slug", "null", "means true, false or nothing in YAML"),
    ("project_slug", "json", TAKEN),
    ("project_slug", "api", TAKEN),
    ("project_slug", "agents", TAKEN),
    ("project_slug", "db", TAKEN),
    ("project_slug", "evals", TAKEN),
    ("project_slug", "pydantic-evals", TAKEN),
    ("project_slug", "alembic", TAKEN),
    ("project_slug", "tests", TAKEN),
    ("project_slug", "pydantic-ai", TAKEN),
    ("project_slug", "concurrent", TAKEN),
    ("project_name", "", "The project name is empty"),
    ("project_name", "   ", "The project name is empty"),
    ("project_name", "n" * 101, "100 are the most"),
    ("project_name", "one\ntwo", "write it on one line"),
    ("description", "", "The description is empty"),
    ("description", "d" * 301, "300 are the most"),
    ("description", "a\tb", "control character"),
    ("author", "", "The author is empty"),
    ("email", "", "has the form name@example.com"),
    ("email", "nobody", "has the form name@example.com"),
    ("email", "a@b", "has the form name@example.com"),
    ("email", "a b@example.com", "has the form name@example.com"),
    ("email", "a@example..com", "has the form name@example.com"),
    ("email", '"a"@example.com', "has the form name@example.com"),
    ("python_version", "3.10", "choose one of 3.11, 3.12, 3.13, 3.14"),
    ("python_version", "3.99", "choose one of 3.11, 3.12, 3.13, 3.14"),
    ("python_version", "three", "choose one of 3.11, 3.12, 3.13, 3.14"),
]


# The first answer of each sentence is quick; how the others end is known by it.
CASES = {f"{question}={answer!r:.24}": (question, answer, says) for question, answer, says in REFUSED}
QUICK = {says: name for name, (_, _, says) in reversed(CASES.items())}.values()


@pytest.mark.parametrize(("question", "answer", "says"), quick_are(QUICK, CASES))
def test_refused_in_one_sentence_before_anything_is_written(
    question: str, answer: str, says: str, tmp_path: Path
) -> None:
    for name in ("out", "temporary"):
        (tmp_path / name).mkdir()
    environment = {"TMPDIR": str(tmp_path / "temporary"), "HOME": str(tmp_path / "home")}
    outcome = cookiecutter(tmp_path / "out", {question: answer}, env=environment)
    assert outcome.code == 1
    assert_one_sentence(outcome.output, says)
    assert list((tmp_path / "out").iterdir()) == []
    assert list((tmp_path / "temporary").iterdir()) == []
    assert sorted(tmp_path.iterdir()) in (
        [tmp_path / "out", tmp_path / "temporary"],
        [tmp_path / "home", tmp_path / "out", tmp_path / "temporary"],
    )


def assert_one_sentence(output: str, says: str) -> None:
    """The output is the one sentence and nothing else: no traceback, no context, no second line."""
    lines = output.strip().splitlines()
    assert len(lines) == 1, output
    assert says in lines[0]
    assert lines[0].startswith("The "), output
    assert lines[0].endswith("."), output


def test_refused_at_the_prompt(tmp_path: Path) -> None:
    outcome = type_answers(tmp_path, ["My Agent", "My_Agent"])
    assert outcome.code == 1
    assert "The slug 'My_Agent' can't be used" in outcome.output
    assert "Traceback" not in outcome.output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("question", "answer"), [("project_slug", "json"), ("email", "nobody"), ("author", "a\nb")]
)
def test_an_edited_replay_file_is_refused_by_the_hook(question: str, answer: str, tmp_path: Path) -> None:
    """Answers that come past the questions meet the same checks again before a file is written."""
    home = tmp_path / "home"
    home.mkdir()
    cookiecutter(tmp_path / "first", {"install": "no", "init_git": "no"}, env={"HOME": str(home)}, check=True)
    (kept,) = (home / ".cookiecutter_replay").glob("*.json")
    context = json.loads(kept.read_text(encoding="utf-8"))
    context["cookiecutter"][question] = answer
    edited = tmp_path / "edited.json"
    edited.write_text(json.dumps(context), encoding="utf-8")
    second = tmp_path / "second"
    second.mkdir()
    outcome = cookiecutter(second, options=("--replay-file", str(edited)))
    assert outcome.code == 1
    assert re.search(r"^The .*\.$", outcome.output, flags=re.MULTILINE), outcome.output
    assert list(second.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("Agent API", "agent-api"),
        ("Größter Agent 2.0", "grosster-agent-2-0"),
        ("日本 API", "ri-ben-api"),
        ('Zoë’s "Best" Agent: 100% {safe} \\ API', "zoes-best-agent-100-safe-api"),
    ],
)
def test_slug_is_derived_from_the_name(name: str, slug: str, tmp_path: Path) -> None:
    cookiecutter(tmp_path, {"project_name": name, "install": "no", "init_git": "no"}, check=True)
    assert [path.name for path in tmp_path.iterdir()] == [slug]


def check_arrived(workspace: Workspace, answers: dict[str, str]) -> None:
    """Each answer is, where another program reads it, what the user wrote."""
    project = tomllib.loads(workspace.read("pyproject.toml"))["project"]
    assert project["name"] == answers["project_slug"]
    assert project["description"] == answers["description"]
    assert project["authors"] == [{"name": answers["author"], "email": answers["email"]}]

    assert first_heading(workspace.read("README.md")) == answers["project_name"]
    assert answers["author"] in workspace.read("LICENSE")

    labels = dict(
        re.findall(r'org\.opencontainers\.image\.(\w+)="((?:\\.|[^"\\])*)"', workspace.read("Dockerfile"))
    )
    unescaped = {name: re.sub(r'\\(["\\$])', r"\1", value) for name, value in labels.items()}
    assert unescaped["title"] == answers["project_name"]
    assert unescaped["description"] == answers["description"]
    assert unescaped["authors"] == f"{answers['author']} <{answers['email']}>"

    compose = yaml.safe_load(workspace.read("compose.yaml"))
    assert compose["name"] == answers["project_slug"]
    assert answers["project_slug"] in compose["services"]


def first_heading(markdown: str) -> str:
    """The text of the first heading, as a reader of the rendered page sees it."""
    tokens = MarkdownIt().parse(markdown)
    position = next(index for index, token in enumerate(tokens) if token.type == "heading_open")
    children = tokens[position + 1].children or []
    assert {child.type for child in children} <= {"text", "text_special"}, markdown
    return "".join(child.content for child in children)


@pytest.mark.parametrize("answers", ODD_ANSWERS)
def test_odd_answers_on_the_command_line_arrive(answers: dict[str, str], tmp_path: Path) -> None:
    cookiecutter(tmp_path, {**answers, "install": "no", "init_git": "no"}, check=True)
    check_arrived(Workspace(tmp_path / answers["project_slug"]), answers)


@pytest.mark.parametrize("answers", ODD_ANSWERS)
def test_odd_answers_typed_at_the_prompt_arrive(answers: dict[str, str], tmp_path: Path) -> None:
    names = [name for name in QUESTIONS if not name.startswith("_")]
    typed = {**answers, "install": "n", "init_git": "n"}
    outcome = type_answers(tmp_path, [typed.get(name, "") for name in names])
    assert outcome.code == 0, outcome.output
    check_arrived(Workspace(tmp_path / answers["project_slug"]), answers)


def test_every_question_is_asked_in_a_sentence_and_choices_say_what_they_mean(tmp_path: Path) -> None:
    prompts = QUESTIONS["__prompts__"]
    names = [name for name in QUESTIONS if not name.startswith("_")]
    assert set(prompts) == set(names)
    outcome = type_answers(tmp_path, ["n" if name in {"install", "init_git"} else "" for name in names])
    assert outcome.code == 0, outcome.output
    shown = " ".join(outcome.output.split())
    for prompt in prompts.values():
        for sentence in [prompt] if isinstance(prompt, str) else prompt.values():
            assert " ".join(sentence.split()) in shown, f"{sentence!r} doesn't show as it is written"


def type_answers(output: Path, answers: Sequence[str]) -> Outcome:
    return at_terminal([sys.executable, "-m", "cookiecutter", "-o", str(output), str(ROOT)], answers)


@pytest.mark.full
@pytest.mark.parametrize("folder", ["with spaces in it", "nicht-ASCII-ñ-日本", "it's (odd) & more; #1"])
def test_output_folder_may_have_any_name(folder: str, tmp_path: Path) -> None:
    """Install, verify, and migrate the workspace's own database there."""
    output = tmp_path / folder
    outcome = cookiecutter(output)
    assert outcome.code == 0, outcome.output
    workspace = Workspace(output / "agent-api")
    workspace.alembic("upgrade", "head")
    assert "(head)" in workspace.alembic("current").output


@pytest.mark.full
def test_a_moved_workspace_works_after_uv_sync(tmp_path: Path) -> None:
    cookiecutter(tmp_path / "first", check=True)
    before = Workspace(tmp_path / "first" / "agent-api")
    before.alembic("upgrade", "head")
    moved = Workspace(Path(shutil.move(before.path, tmp_path / "a new place")))
    uv = os.environ["UV"]
    run(uv, "sync", "--quiet", cwd=moved.path)
    # Its database moved along.
    assert "(head)" in run(uv, "run", "alembic", "-c", "db/alembic.ini", "current", cwd=moved.path).output
    assert "agent-api" in moved.read("pyproject.toml")
    run(uv, "run", "python", "-m", "chassis", "verify", cwd=moved.path)
    run(uv, "run", "pytest", "chassis/tests/test_settings.py", cwd=moved.path)
    assert str(before.path) not in moved.run("alembic", "--version").output
