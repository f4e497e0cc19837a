"""Give the knowledge agent documents: ``python -m chassis ingest PATH...``.

What a request to the provider has brought is written at once, each document in a transaction of its own. So
the command may be stopped at any moment, run again, and run twice at once, and no vector is paid for twice. No
connection is held while vectors are made.
"""

import argparse
import hashlib
import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pgvector import Vector
from psycopg.errors import UndefinedTable
from pydantic_ai.exceptions import AgentRunError
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress
from sqlalchemy import Connection, Engine, delete, func, insert, select
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import OperationalError, ProgrammingError

from chassis.database.engine import sync_engine
from chassis.knowledge import tables as stored
from chassis.knowledge.demonstration import DEMONSTRATION
from chassis.knowledge.embeddings import Embeddings, current_embeddings
from chassis.knowledge.passages import Passage, split
from chassis.runs.errors import explain
from chassis.settings import ChassisError

SUFFIXES = (".md", ".rst", ".txt")
# How many texts a provider gets at once: the fewest that any of them takes (Cohere).
BATCH = 96


class IngestError(ChassisError):
    """Nothing can be read or written; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Text:
    """A document as its file has it now. The model is part of each hash: other vectors are other passages."""

    source: str
    hash: bytes
    passages: Mapping[bytes, Passage]

    @classmethod
    def read(cls, path: Path, model: str) -> Self:
        """Read and cut the file, which must be UTF-8, as must its name."""
        path.as_posix().encode()
        text = path.read_text(encoding="utf-8-sig").replace("\0", "")
        passages = {_hash(model, *passage): passage for passage in split(text, path.stem)}
        return cls(path.as_posix(), _hash(model, *(key.hex() for key in passages)), passages)


def _hash(*parts: str) -> bytes:
    return hashlib.sha256("\0".join(parts).encode()).digest()


def batches(keys: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """Yield none, then as many as a request takes, until all are through."""
    yield ()
    for start in range(0, len(keys), BATCH):
        yield keys[start : start + BATCH]


def _shown(path: Path) -> str:
    return os.fsencode(path).decode(errors="replace")


def _reason(error: Exception) -> str:
    if isinstance(error, UnicodeEncodeError):
        return "has a name that is not UTF-8"
    return getattr(error, "strerror", None) or "is not UTF-8"


def find(paths: Iterable[Path]) -> list[Path]:
    """Return the files under the paths that can be read, without hidden ones.

    Raises:
        IngestError: where a path isn't there, or there is nothing to read.
    """
    found: set[Path] = set()
    for path in paths:
        if not path.exists():
            raise IngestError(f"There is no file or folder {_shown(path)}.")
        for file in [path] if path.is_file() else path.rglob("*"):
            hidden = any(part.startswith(".") for part in file.relative_to(path).parts)
            if file.suffix.lower() in SUFFIXES and file.is_file() and not hidden:
                found.add(file)
    if not found:
        raise IngestError(f"There is nothing to read: no file that ends in {', '.join(SUFFIXES)}.")
    return sorted(found)


class Ingestion:
    """Brings the tables in line with files."""

    def __init__(self, engine: Engine, model: Embeddings) -> None:
        """Keep what it works with. `counts` says what it did so far."""
        self.counts: Counter[str] = Counter()
        self._engine = engine
        self._model = model

    def run(self, files: Sequence[Path], *, reembed: bool) -> Iterator[str]:
        """Write what is new or changed; for each file that is done with yield "", or why it can't be read.

        Raises:
            IngestError: where documents have vectors of another model, unless `reembed` is set.
        """
        document = stored.Document
        with self._engine.connect() as connection:
            done = dict(connection.execute(select(document.source, document.hash)).all())
            others = select(document.model).where(document.model != self._model.name).limit(1)
            other = connection.scalar(others)
        if other and not reembed:
            raise IngestError(
                f"There are documents with vectors of {other}, which can't be compared with those of "
                f"{self._model.name}: set KNOWLEDGE_EMBEDDINGS={other}, or make all anew with --reembed."
            )
        waiting: list[Text] = []
        for path in files:
            try:
                text = Text.read(path, self._model.name)
            except (UnicodeError, OSError) as error:
                self.counts["unreadable"] += 1
                yield f"Left out: {_shown(path)} {_reason(error)}"
                continue
            if done.get(text.source) == text.hash:
                self.counts["unchanged"] += 1
                yield ""
                continue
            waiting.append(text)
            if sum(len(text.passages) for text in waiting) >= BATCH:
                yield from self._write_all(waiting)
                waiting = []
        yield from self._write_all(waiting)

    def prune(self, paths: Sequence[Path], files: Sequence[Path]) -> None:
        """Remove the documents under the paths whose files are gone."""
        document = stored.Document
        with self._engine.begin() as connection:
            sources = set(connection.scalars(select(document.source))) - {path.as_posix() for path in files}
            gone = sorted(s for s in sources if any(Path(s).is_relative_to(path) for path in paths))
            connection.execute(delete(document).where(document.source.in_(gone)))
        self.counts["removed"] += len(gone)

    def _write_all(self, texts: Sequence[Text]) -> Iterator[str]:
        """Make the vectors that aren't there yet, and write each document as soon as all of its own are."""
        vectors: dict[bytes, Vector] = {}
        while texts:
            missing = self._find_missing(texts, vectors)
            again: list[Text] = []
            for keys in batches(list(missing)):
                made = self._model.of_passages([missing.pop(key) for key in keys]) if keys else []
                self.counts["embedded"] += len(made)
                vectors.update(zip(keys, made, strict=True))
                unfinished = []
                for text in texts:
                    if not missing.keys().isdisjoint(text.passages):
                        unfinished.append(text)
                        self._keep(text, keys, vectors)
                    elif self._write(text, vectors):
                        yield ""
                    else:
                        again.append(text)
                texts = unfinished
            texts = again

    def _find_missing(self, texts: Sequence[Text], vectors: Mapping[bytes, Vector]) -> dict[bytes, str]:
        """Return what vectors are to be made of."""
        passage = stored.Passage
        here = select(passage.source, passage.hash).where(passage.source.in_([text.source for text in texts]))
        with self._engine.connect() as connection:
            there = set(connection.execute(here).all())
        return {
            key: f"{found.title}\n\n{found.text}"
            for text in texts
            for key, found in text.passages.items()
            if key not in vectors and (text.source, key) not in there
        }

    def _keep(self, text: Text, keys: Sequence[bytes], vectors: Mapping[bytes, Vector]) -> None:
        """Write those passages of a document that isn't complete yet, beside what is there of it."""
        if text.passages.keys().isdisjoint(keys):
            return
        document, passage = stored.Document, stored.Passage
        upsert = postgresql.insert(document).values(source=text.source, hash=b"", model=self._model.name)
        with self._engine.connect() as connection:
            # No text has this hash, so that the document counts as changed until it is complete.
            connection.execute(upsert.on_conflict_do_update(index_elements=["source"], set_={"hash": b""}))
            there = set(connection.scalars(select(passage.hash).where(passage.source == text.source)))
            self._insert(connection, text, text.passages.keys() & set(keys) - there, vectors)
            connection.commit()

    def _insert(
        self, connection: Connection, text: Text, keys: Collection[bytes], vectors: Mapping[bytes, Vector]
    ) -> None:
        rows = [
            {"source": text.source, "hash": key, "embedding": vectors[key], **found._asdict()}
            for key, found in text.passages.items()
            if key in keys
        ]
        if rows:
            connection.execute(insert(stored.Passage), rows)

    def _write(self, text: Text, vectors: Mapping[bytes, Vector]) -> bool:
        """Write all of a document; or nothing, where another process removed a passage that was there."""
        document, passage = stored.Document, stored.Passage
        row = {"hash": text.hash, "model": self._model.name, "updated_at": func.now()}
        upsert = postgresql.insert(document).values(source=text.source, **row)
        with self._engine.connect() as connection:
            # Until the end of the transaction no other process writes this document.
            connection.execute(upsert.on_conflict_do_update(index_elements=["source"], set_=row))
            there = set(connection.scalars(select(passage.hash).where(passage.source == text.source)))
            new = text.passages.keys() - there
            if not new <= vectors.keys():
                return False
            old = there - text.passages.keys()
            connection.execute(delete(passage).where(passage.source == text.source, passage.hash.in_(old)))
            self._insert(connection, text, new, vectors)
            connection.commit()
        self.counts["written"] += 1
        return True


def ingest(paths: Sequence[Path], *, prune: bool, reembed: bool) -> bool:
    """Ingest the files under the paths and tell of it; return whether all of them could be read."""
    console = Console(soft_wrap=True, highlight=False, markup=False)
    files, model = find(paths), current_embeddings()
    if model.name == DEMONSTRATION:
        console.print("No key is set: these vectors are a demonstration and know nothing of meaning.")
    engine = sync_engine(application_name="ingest")
    ingestion = Ingestion(engine, model)
    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("Documents", total=len(files))
        for number, message in enumerate(ingestion.run(files, reembed=reembed), 1):
            progress.advance(task)
            if message:
                console.print(message)
            elif number % 100 == 0 and not console.is_terminal:
                console.print(f"{number} of {len(files)} documents")
    if prune:
        ingestion.prune(paths, files)
    engine.dispose()
    counts = ingestion.counts
    console.print(
        f"Documents: {counts['written']} written ({counts['embedded']} new passages), "
        f"{counts['unchanged']} unchanged, {counts['removed']} removed, {counts['unreadable']} left out."
    )
    return not counts["unreadable"]


def main(arguments: Sequence[str]) -> int:
    """Ingest, and return the exit code: 0 if all files could be read, else 1.

    Raises:
        ChassisError: saying what is wrong, and what to do.
    """
    parser = argparse.ArgumentParser(
        prog="python -m chassis ingest", description="Give the knowledge agent documents."
    )
    parser.add_argument(
        "paths", nargs="+", type=Path, metavar="PATH", help="a folder, or a file: .md, .rst, .txt"
    )
    parser.add_argument(
        "--prune", action="store_true", help="remove documents whose files under PATH are gone"
    )
    parser.add_argument("--reembed", action="store_true", help="replace the vectors of another model")
    options = parser.parse_args(arguments)
    try:
        return 0 if ingest(options.paths, prune=options.prune, reembed=options.reembed) else 1
    except ProgrammingError as error:
        if not isinstance(error.orig, UndefinedTable):
            raise
        raise IngestError(
            "The tables are missing. Make them: alembic -c db/alembic.ini upgrade head"
        ) from error
    except (AgentRunError, OperationalError) as error:
        raise IngestError(f"{explain(error)} What is written stays: run it again to go on.") from error
