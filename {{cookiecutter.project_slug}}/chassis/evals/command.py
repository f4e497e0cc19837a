"""How well agents answer: `python -m chassis evals [NAME ...]`; `evals add` makes cases of what was asked.

Cases are the team's, a file an agent: evals/AGENT.yaml, in the form of pydantic-evals.
"""

import argparse
import asyncio
import io
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from alembic import command
from alembic.config import Config

from chassis.agents.models import CREDENTIALS
from chassis.database import embedded
from chassis.database.engine import sync_engine
from chassis.settings import ALEMBIC_INI, WORKSPACE, ChassisError

EVALS = WORKSPACE / "evals"
# Known by its name, as to uvicorn: the service whose agents are asked.
APP = "api.main:app"
# Names a provider without a key, so that the demonstration answers.
OFFLINE = "openai:offline"


def main(arguments: Sequence[str], folder: Path = EVALS, app: str = APP) -> int:
    """Run the command; return 0 if all that was asked for holds, else 1.

    Raises:
        ChassisError: saying what is wrong, and what to do.
    """
    words = [*arguments]
    if not words or words[0] not in {"run", "add", "-h", "--help"}:
        words.insert(0, "run")
    options = _parser().parse_args(words)
    if find_spec("pydantic_evals") is None:
        raise ChassisError("pydantic-evals isn't installed. Run: uv sync --group evals")
    if options.command == "add":
        from chassis.evals import cases

        return cases.add(options, folder)
    return _run(options, folder, app)


def _run(options: argparse.Namespace, folder: Path, app: str) -> int:
    from chassis.evals.datasets import load_all

    # Before anything is started, or asked, which may cost something.
    loaded = load_all(folder, options.names)
    if not loaded:
        print(f"There are no cases yet: write {folder.name}/AGENT.yaml, see README.md, Evaluation.")
        return 0
    os.environ.setdefault("LOG_LEVEL", "ERROR")
    if options.offline:
        _forget_providers()
        options.model = OFFLINE
    # What is named here may be chosen, as by a request.
    offered = (os.environ.get("AGENT_MODELS"), options.model, options.judge)
    os.environ["AGENT_MODELS"] = ",".join(filter(None, offered))
    with nullcontext() if options.database else _throw_away(folder):
        # Here, since it loads the service, which reads the environment.
        from chassis.evals.running import evaluate

        return asyncio.run(evaluate(options, loaded, folder / "last", app))


def _forget_providers() -> None:
    """Leave no way to a provider: without any key the demonstration answers, and makes the vectors too."""
    names = {name for names in CREDENTIALS.values() for name in names}
    for name in [name for name in os.environ if name in names or name.endswith("_API_KEY")]:
        del os.environ[name]
    os.environ.pop("KNOWLEDGE_EMBEDDINGS", None)
    os.environ["RUNTIME_ENV"] = "dev"


@contextmanager
def _throw_away(folder: Path) -> Iterator[None]:
    """Run a database with all tables, and the documents, for as long as the block lasts."""
    with embedded.throw_away() as url:
        os.environ["DATABASE_URL"] = url.render_as_string(hide_password=False)
        engine = sync_engine(url)
        with engine.connect() as connection:
            config = Config(ALEMBIC_INI)
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
        engine.dispose()
        _ingest(folder / "documents")
        yield


def _ingest(documents: Path) -> None:
    """Give the knowledge agent the documents that the cases ask about."""
    if documents.is_dir() and find_spec("chassis.knowledge") is not None:
        with redirect_stdout(io.StringIO()) as told:
            done = import_module("chassis.knowledge.ingest").main([str(documents)])
        if done != 0:
            raise ChassisError(f"Not all of {documents} could be read:\n{told.getvalue()}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m chassis evals", description="How well agents answer the cases in evals/."
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    run = commands.add_parser("run", help="ask the cases; this is what is done unless told")
    run.add_argument("names", nargs="*", metavar="NAME", help="agents, all that have cases unless told")
    run.add_argument("--model", metavar="PROVIDER:MODEL", help="which answers, in place of the agents' own")
    run.add_argument(
        "--judge",
        metavar="PROVIDER:MODEL",
        help="which judges where a case wants that, else the one that answers",
    )
    run.add_argument(
        "--offline", action="store_true", help="let the demonstration answer, also where a key is set"
    )
    run.add_argument(
        "--threshold", type=_share, default=1.0, metavar="SHARE", help="of what must hold, 1 unless told"
    )
    run.add_argument("--repeat", type=_number, default=1, metavar="N", help="ask each case N times")
    run.add_argument(
        "--concurrency", type=_number, default=4, metavar="N", help="cases at once, 4 unless told"
    )
    run.add_argument(
        "--database", action="store_true", help="use the database of the settings, not a throw-away one"
    )
    add = commands.add_parser("add", help="make cases of runs, into evals/AGENT.yaml")
    add.add_argument("runs", nargs="*", metavar="RUN_ID", help="runs, see `python -m chassis feedback`")
    add.add_argument("--thumb", choices=("up", "down"), help="all answers that were judged so")
    return parser


def _share(value: str) -> float:
    try:
        share = float(value)
    except ValueError:
        share = -1
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError(f"must be a share from 0 to 1, such as 0.9, not {value!r}")
    return share


def _number(value: str) -> int:
    if not (value.isascii() and value.isdecimal() and 0 < int(value) <= 1000):
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 to 1000, not {value!r}")
    return int(value)
