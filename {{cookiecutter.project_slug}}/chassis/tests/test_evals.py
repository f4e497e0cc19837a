"""Evaluation: the team's cases asked as callers ask, judged, compared with the last time, and made of what was said."""

import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import URL, func, select

pytest.importorskip("pydantic_evals", reason="uv sync --group evals")

import yaml

from chassis.conversations.tables import Conversation
from chassis.database.engine import sync_engine
from chassis.evals import command, datasets
from chassis.keys.tables import ApiKeyUsage
from chassis.runs.tables import Run
from chassis.settings import WORKSPACE, ChassisError
from chassis.testing.client import ask, counts, run_rows
from chassis.testing.service import clean_env

# As `python -m chassis evals`, with other cases, asked of the agents of the chassis' own tests.
PROGRAM = """
import sys
from pathlib import Path
from chassis.evals.command import main
from chassis.settings import ChassisError
sys.path.insert(0, str(Path(sys.argv[1]).parent))
try:
    sys.exit(main(sys.argv[2:], Path(sys.argv[1]), "chassis.tests.app:app"))
except ChassisError as error:
    sys.exit(str(error))
"""
OFFLINE = """
cases:
  - name: the time
    inputs: What time is it?
    evaluators:
      - ToolCorrectness: [current_time]
      - Contains: UTC
      - LLMJudge: It is polite.
  - name: with a model only
    inputs: What is the meaning of it?
    metadata: {needs_model: true}
    evaluators:
      - Contains: never said by the demonstration
"""
ONLINE = """
# A comment that stays.
evaluators:
  - MaxDuration: 60
cases:
  - name: two questions
    inputs: [say one, Two]
    evaluators:
      - Contains: "Heard 2: Two"
      - LLMJudge: {rubric: It is polite., include_input: true}
  - name: a tool
    inputs: 'call current_time {"time_zone": "Europe/Berlin"}'
    evaluators:
      - ArgumentCorrectness: {tool_name: current_time, expected_arguments: {time_zone: Europe/Berlin}}
  - name: refused by the provider
    inputs: fail quota
  - name: refused by the judge
    inputs: say yes
    evaluators:
      - LLMJudge: It is never good.
      - Shorter: 4
      - Shorter: 2
"""
OWN = """
from dataclasses import dataclass

from pydantic_evals.evaluators import Evaluator, EvaluatorContext


@dataclass
class Shorter(Evaluator[object, object, object]):
    characters: int

    def evaluate(self, ctx: EvaluatorContext[object, object, object]) -> bool:
        return len(str(ctx.output)) < self.characters


EVALUATORS = (Shorter,)
"""
Evals = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "cases_of_this_test"
    folder.mkdir()
    return folder


@pytest.fixture
def evals(folder: Path, model: dict[str, str], database: URL) -> Evals:
    """Run the command, on the tests' database if it takes one, and return what it says."""

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        address = database.render_as_string(hide_password=False)
        env = clean_env(**model, DATABASE_URL=address, COLUMNS="200", PYTHONUTF8="1")
        command = [sys.executable, "-c", PROGRAM, str(folder), *words]
        return subprocess.run(command, cwd=WORKSPACE, env=env, capture_output=True, text=True, check=False)

    return run


def test_offline_it_costs_nothing(evals: Evals, folder: Path, provider: httpx.Client) -> None:
    """Also where a key is set; and what only a model can answer, or judge, is left out."""
    (folder / "assistant.yaml").write_text(OFFLINE)
    before = counts(provider)
    done = evals("--offline")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "assistant (offline): 2 of 2 hold, 100%: enough." in done.stdout
    assert "Left out, for want of a model: 1 cases, 1 judgements." in done.stdout
    # The second time it is compared with the first.
    (folder / "assistant.yaml").write_text(OFFLINE.replace("Contains: UTC", "Contains: CET"))
    worse = evals("assistant", "--offline", "--database")
    assert worse.returncode == 1
    assert "assistant (offline): 1 of 2 hold, 50%: NOT ENOUGH, 100% is wanted." in worse.stdout
    assert "100.0% ✔ → 50.0% ✔" in worse.stdout
    assert counts(provider) == before


def test_with_a_model_it_asks_as_callers_do(
    evals: Evals, folder: Path, provider: httpx.Client, database: URL
) -> None:
    (folder / "assistant.yaml").write_text(ONLINE)
    (folder / "__init__.py").write_text(OWN)
    words = ("--database", "--threshold", "0.7", "--judge", "openai-chat:judge", "--concurrency", "1")
    done = evals(*words)
    # One is refused by the judge, one by an evaluator, and one case has broken off.
    assert "assistant (openai:fake): 7 of 10 hold, 70%: enough." in done.stdout, done.stdout + done.stderr
    assert done.returncode == 0
    assert "I said so." in done.stdout
    assert provider.get("/last").json()["model"] == "judge"
    engine = sync_engine(database)
    with engine.connect() as connection:
        for column in (Conversation.scope, Run.owner, ApiKeyUsage.owner):
            assert connection.scalar(select(func.count()).where(column.startswith("evals-"))) == 0
    engine.dispose()


WRONG = {
    "no YAML": ("cases: [", "can't be read"),
    "empty": ("", "can't be read"),
    "another field": ("cases:\n- input: hello\n", "inputs"),
    "an unknown evaluator": ("cases:\n- inputs: hello\n  evaluators: [Nonsense]\n", "EVALUATORS in"),
    "an unknown option": ("cases:\n- inputs: hello\n  evaluators: [Contains: {valeu: x}]\n", "Contains"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_files_are_refused_before_anything_is_started(folder: Path, wrong: str) -> None:
    text, words = WRONG[wrong]
    (folder / "assistant.yaml").write_text(text)
    with pytest.raises(ChassisError, match=words):
        command.main(["--offline"], folder)


def test_where_there_is_nothing_to_ask(
    evals: Evals, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main([], folder) == 0
    assert "There are no cases yet" in capsys.readouterr().out
    with pytest.raises(ChassisError, match="There are no cases of 'assistant'"):
        command.main(["assistant"], folder)
    for wrong in (["--threshold", "2"], ["--repeat", "0"], ["add", "--thumb", "sideways"]):
        with pytest.raises(SystemExit):
            command.main(wrong, folder)
    (folder / "nobody.yaml").write_text("cases:\n- inputs: hello\n")
    refused = evals("--database")
    assert refused.returncode == 1
    assert refused.stderr.startswith("nobody.yaml is of no agent. Agents are: assistant")


@pytest.fixture
def add(
    folder: Path, database: URL, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Run `evals add`, and return what it prints."""
    monkeypatch.setenv("DATABASE_URL", database.render_as_string(hide_password=False))

    def run(*words: str) -> str:
        assert command.main(["add", *words], folder) == 0
        return capsys.readouterr().out

    return run


def test_cases_are_made_of_what_was_asked(
    add: Callable[..., str], folder: Path, scripted: httpx.Client
) -> None:
    file = folder / "assistant.yaml"
    file.write_text(ONLINE)
    first = ask(scripted, "say one\n  two").json()
    good = ask(scripted, "say: ünïcode \U0001f600", first["conversation_id"]).json()
    bad = ask(scripted, "say bad").json()
    other = ask(scripted, "hello").json()
    thumbs: list[tuple[Any, dict[str, str]]] = [
        (good, {"thumb": "up"}),
        (bad, {"thumb": "down", "words": "It is never\nright."}),
    ]
    for run, said in thumbs:
        scripted.post(f"/v1/runs/{run['run_id']}/feedback", json=said).raise_for_status()
    runs = [run["run_id"] for run in (good, bad, other)]
    assert "take out names" in add(*runs)
    text = file.read_text()
    assert text.startswith(ONLINE)
    by_run = {case["metadata"]["run_id"]: case for case in yaml.safe_load(text)["cases"][-3:]}
    assert by_run.keys() == set(runs)
    case = by_run[good["run_id"]]
    assert case["inputs"] == ["say one\n  two", "say: ünïcode \U0001f600"]
    assert (case["expected_output"], case["metadata"]["thumb"]) == (good["output"], "up")
    case = by_run[bad["run_id"]]
    assert (case["inputs"], case["metadata"]["bad_output"]) == ("say bad", "bad")
    assert "expected_output" not in case
    assert case["evaluators"][0]["LLMJudge"]["rubric"].endswith("It is never\nright.")
    # Once more is the same, and so is what was judged.
    for again in (runs, [bad["run_id"], "--thumb", "down"]):
        assert "is there already" in add(*again)
        assert file.read_text() == text
    # Another agent's are in a file of its own, which need not be there.
    file.unlink()
    add(good["run_id"])
    [only] = datasets.load_all(folder, ["assistant"])["assistant"].cases
    assert only.expected_output == good["output"]


@pytest.mark.parametrize(
    ("runs", "words"),
    [
        ([str(uuid.uuid4())], "There is no such run"),
        (["nonsense"], "is no run's id"),
        ([], "Say which"),
        (["failed"], "nothing is kept that could be asked again: it is failed"),
    ],
)
def test_what_no_case_can_be_made_of(
    add: Callable[..., str], folder: Path, scripted: httpx.Client, database: URL, runs: list[str], words: str
) -> None:
    if runs == ["failed"]:
        conversation = ask(scripted, "hello").json()["conversation_id"]
        ask(scripted, "fail quota", conversation)
        runs = [str(run_rows(database, conversation)[-1].id)]
    with pytest.raises(ChassisError, match=words):
        add(*runs)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    "form",
    [
        "cases: [{inputs: hello}]\n",
        "cases:\n- inputs: hello\nevaluators: []\n",
        "- inputs: hello\n",
        "cases: [\n",
    ],
)
def test_a_file_of_another_form_stays_as_it_is(
    add: Callable[..., str], folder: Path, scripted: httpx.Client, form: str
) -> None:
    run = ask(scripted, "hello").json()["run_id"]
    (folder / "assistant.yaml").write_text(form)
    with pytest.raises(ChassisError, match=r"must end with its list of cases|can't be read"):
        add(run)
    assert (folder / "assistant.yaml").read_text() == form
