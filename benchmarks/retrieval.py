"""Measure the knowledge agent: how fast it ingests and searches, and how often it finds the right passage.

Bakes a workspace, or takes one that is installed: ``retrieval.py [WORKSPACE]``. The corpus is what Python's
standard library says of itself; questions and answers are those of the workspace's tests. The vectors are the
offline demonstration's, unless the environment names others (KNOWLEDGE_EMBEDDINGS and the provider's key).
"""

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

FOUND_WITHIN = (1, 3, 10)
TURNS = 5


def main() -> int:
    """Find or make a workspace, and run the measurement in its Python."""
    if len(sys.argv) > 1:
        return measure_in(Path(sys.argv[1]).resolve(), dict(os.environ))
    from workshop import TEMPLATE, cost_of, open_workshop

    with open_workshop() as workshop:
        workspace, _ = workshop.bake(TEMPLATE, "install=no", "init_git=no")
        cost_of([workshop.uv, "sync"], workspace, workshop.env)
        return measure_in(workspace, workshop.env)


def measure_in(workspace: Path, env: dict[str, str]) -> int:
    """Run this file with the workspace's packages."""
    python = workspace / ".venv" / "bin" / "python"
    env = env | {"PYTHONPATH": str(workspace), "INSIDE_WORKSPACE": "yes"}
    return subprocess.call([python, "-W", "ignore", __file__], cwd=workspace, env=env)


def inside() -> None:
    """Measure on a throw-away database and print the figures. Everything imported here is the workspace's."""
    from chassis.database import embedded
    from tests.test_knowledge import write_corpus

    from tests.support.workspaces import upgrade

    with embedded.throw_away() as url, tempfile.TemporaryDirectory() as folder:
        os.environ["DATABASE_URL"] = url.render_as_string(hide_password=False)
        upgrade(url)
        write_corpus(Path(folder))
        passages, seconds = ingest(Path(folder))
        print(f"ingested: {passages} passages in {seconds:.1f} s, {passages / seconds:.0f} passages/s")
        _, seconds = ingest(Path(folder))
        print(f"ingested again, nothing changed: {seconds:.2f} s\n")
        asyncio.run(questions())


def ingest(folder: Path) -> tuple[int, float]:
    """Ingest the folder; return how many passages are new and the seconds it took, without imports."""
    from chassis.database.engine import sync_engine
    from chassis.knowledge.embeddings import current_embeddings
    from chassis.knowledge.ingest import Ingestion, find

    engine = sync_engine()
    ingestion = Ingestion(engine, current_embeddings())
    began = time.perf_counter()
    list(ingestion.run(find([folder]), reembed=False))
    seconds = time.perf_counter() - began
    engine.dispose()
    return ingestion.counts["embedded"], seconds


async def questions() -> None:
    """Ask every question each way, and print how often and how fast its answer was found."""
    from chassis.database.engine import async_engine
    from chassis.knowledge.embeddings import current_embeddings
    from chassis.knowledge.search import SEARCH
    from chassis.knowledge.tables import LANGUAGE
    from sqlalchemy import text
    from tests.test_knowledge import QUESTIONS

    model = current_embeddings()
    vectors = {question: await model.of_query(question) for question in QUESTIONS}
    engine = async_engine()
    async with engine.connect() as connection:
        await connection.execute(text("ANALYZE passages"))

        async def timed(statement: Any, values: dict[str, Any]) -> tuple[float, list[Any]]:
            began = time.perf_counter()
            found = (await connection.execute(statement, values)).all()
            return time.perf_counter() - began, list(found)

        floor = median([(await timed(text("SELECT 1"), {}))[0] for _ in range(TURNS * len(QUESTIONS))])
        print(f"{len(QUESTIONS)} questions, vectors of {model.name}; SELECT 1 takes {floor * 1000:.2f} ms\n")
        head = " | ".join(f"recall@{n}" for n in FOUND_WITHIN)
        print(f"| search       | {head} | MRR  | median  | ÷ SELECT 1 |")
        print(
            f"| ------------ | {' | '.join('-' * len(f'recall@{n}') for n in FOUND_WITHIN)} | ---- | ------- | ---------- |"
        )
        # The same statement each way: no words to look for, or no vectors that may be compared.
        for way, words, vectors_of in (
            ("vectors", False, model.name),
            ("words", True, ""),
            ("both", True, model.name),
        ):
            places, times = [], []
            for question, title in QUESTIONS.items():
                values = {
                    "query": question if words else "",
                    "vector": vectors[question],
                    "model": vectors_of,
                }
                values |= {"language": LANGUAGE, "results": max(FOUND_WITHIN)}
                for _ in range(TURNS):
                    seconds, rows = await timed(SEARCH, values)
                    times.append(seconds)
                titles = [row.title.rpartition(" > ")[2] for row in rows]
                places.append(titles.index(title) + 1 if title in titles else None)
            print_row(way, places, median(times), floor)
    await engine.dispose()


def print_row(way: str, places: list[int | None], seconds: float, floor: float) -> None:
    """Print one way's figures."""
    found = [place for place in places if place]
    recalls = [sum(place <= n for place in found) / len(places) for n in FOUND_WITHIN]
    cells = [
        f"{recall:.2f}".ljust(len(f"recall@{n}")) for recall, n in zip(recalls, FOUND_WITHIN, strict=True)
    ]
    mrr = sum(1 / place for place in found) / len(places)
    print(
        f"| {way:12} | {' | '.join(cells)} | {mrr:.2f} | {seconds * 1000:4.1f} ms | {seconds / floor:10.1f} |"
    )


if __name__ == "__main__":
    if os.environ.get("INSIDE_WORKSPACE"):
        inside()
    else:
        sys.exit(main())
