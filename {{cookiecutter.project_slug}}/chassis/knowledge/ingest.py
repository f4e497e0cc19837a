"""Give the knowledge agent documents: ``python -m chassis ingest PATH...``.

What a request to the provider has brought is written at once, each document in a transaction of its own. So
the command may be stopped at any moment, run again, and run twice at once, and no vector is paid for twice. No
connection is held while vectors are made.
"""

import argparse
import hashlib
import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, Protocol, Self
from uuid import UUID, uuid5

from pgvector import Vector
from psycopg.errors import UndefinedTable
from pydantic_ai.exceptions import AgentRunError
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress
from sqlalchemy import Connection, Engine, delete, func, insert, select
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import OperationalError, ProgrammingError

from chassis.database.engine import sync_engine
from chassis.knowledge import bucket
from chassis.knowledge import tables as stored
from chassis.knowledge.demonstration import DEMONSTRATION
from chassis.knowledge.embeddings import Embeddings, current_embeddings
from chassis.knowledge.passages import Passage, split
from chassis.knowledge.reading import SUFFIXES, UnreadableError, read
from chassis.runs.errors import explain
from chassis.settings import ChassisError

# How many texts a provider gets at once: the fewest that any of them takes (Cohere).
BATCH = 96
# Of which sources are made that people don't read.
COLLECTION = r"^[A-Za-z0-9._-]{1,64}$"
PLACES = UUID("2b5c8de0-6a0f-4a55-9d3d-1f0ff0c60a31")


class IngestError(ChassisError):
    """Nothing can be read or written; the message says what to do."""


class Readable(Protocol):
    """A file: one of a folder is a `Path`."""

    def as_posix(self) -> str:
        """Return its name."""

    def read_bytes(self) -> bytes:
        """Return its contents."""


class Place(NamedTuple):
    """Whose a document is (None: everybody's), and in which of the owner's collections."""

    owner: str | None
    collection: str

    def source(self, name: str) -> str:
        """Return the source that the document of this name has here: the same place is the same document."""
        return f"document:{uuid5(PLACES, chr(0).join([self.owner or '', self.collection, name]))}"


@dataclass(frozen=True, slots=True)
class Text:
    """A document as its file has it now. The model is part of each hash: other vectors are other passages."""

    source: str
    hash: bytes
    passages: Mapping[bytes, Passage]
    # The other columns of its row.
    columns: Mapping[str, Any] = field(default_factory=dict)

    @property
    def table(self) -> stored.Passages:
        """Where its passages belong."""
        return stored.Passage if self.columns.get("owner") is None else stored.OwnedPassage

    @classmethod
    def read(cls, file: Readable, model: str, place: Place | None = None) -> Self:
        """Read and cut a file, whose name must be UTF-8."""
        file.as_posix().encode()
        return cls.of(file.as_posix(), file.read_bytes(), model, place)

    @classmethod
    def of(
        cls, name: str, data: bytes, model: str, place: Place | None = None, most: int | None = None
    ) -> Self:
        """Read and cut a document, which may have so many characters.

        Raises:
            UnreadableError: if there is nothing to be read in it.
        """
        text = read(data, name, most=most)
        passages = {_hash(model, *passage): passage for passage in split(text, PurePosixPath(name).stem)}
        hash_of_all = _hash(model, *(key.hex() for key in passages))
        if place is None:
            return cls(name, hash_of_all, passages)
        columns = {**place._asdict(), "name": name, "size": len(data), "text": text}
        return cls(place.source(name), hash_of_all, passages, columns)


def _hash(*parts: str) -> bytes:
    return hashlib.sha256("\0".join(parts).encode()).digest()


def batches(keys: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """Yield none, then as many as a request takes, until all are through."""
    yield ()
    for start in range(0, len(keys), BATCH):
        yield keys[start : start + BATCH]


def _shown(path: Readable) -> str:
    return os.fsencode(path.as_posix()).decode(errors="replace")


def _is_under(name: str, path: str) -> bool:
    if name.startswith(bucket.SCHEME) or path.startswith(bucket.SCHEME):
        path = path.rstrip("/")
        return name == path or name.startswith(f"{path}/")
    return Path(name).is_relative_to(path)


def _reason(error: Exception) -> str:
    if isinstance(error, UnicodeEncodeError):
        return "has a name that is not UTF-8"
    if isinstance(error, UnreadableError):
        return str(error)
    return getattr(error, "strerror", None) or "is not UTF-8"


def find(paths: Iterable[str]) -> list[Readable]:
    """Return the files under the paths, or addresses of buckets, that can be read, without hidden ones.

    Raises:
        IngestError: where a path isn't there, or there is nothing to read.
    """
    found: set[Path] = set()
    objects: list[Readable] = []
    for name in paths:
        if name.startswith(bucket.SCHEME):
            objects += bucket.find(name)
            continue
        path = Path(name)
        if not path.exists():
            raise IngestError(f"There is no file or folder {_shown(path)}.")
        for file in [path] if path.is_file() else path.rglob("*"):
            hidden = any(part.startswith(".") for part in file.relative_to(path).parts)
            if file.suffix.lower() in SUFFIXES and file.is_file() and not hidden:
                found.add(file)
    if not found and not objects:
        raise IngestError(f"There is nothing to read: no file that ends in {', '.join(SUFFIXES)}.")
    return [*sorted(found), *objects]


class Ingestion:
    """Brings the tables in line with files."""

    def __init__(self, engine: Engine, model: Embeddings, place: Place | None = None) -> None:
        """Keep what it works with, and where documents belong. `counts` says what it did so far."""
        self._place = place
        self.counts: Counter[str] = Counter()
        self._engine = engine
        self._model = model

    def run(self, files: Sequence[Readable], *, reembed: bool) -> Iterator[str]:
        """Write what is new or changed; for each file that is done with yield "", or why it can't be read.

        Raises:
            IngestError: where documents have vectors of another model, unless `reembed` is set.
        """
        document = stored.Document
        with self._engine.connect() as connection:
            done = dict(connection.execute(select(document.source, document.hash)).all())
        self.check_model(reembed=reembed)
        waiting: list[Text] = []
        for path in files:
            try:
                text = Text.read(path, self._model.name, self._place)
            except (UnicodeError, UnreadableError, OSError) as error:
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

    def put(self, text: Text) -> None:
        """Write one document, whatever there was.

        Raises:
            IngestError: where documents have vectors of another model.
        """
        self.check_model(reembed=False)
        for _ in self._write_all([text]):
            pass

    def check_model(self, *, reembed: bool) -> None:
        """Refuse to mix vectors of two models.

        Raises:
            IngestError: where documents have vectors of another model, unless `reembed` is set.
        """
        document = stored.Document
        with self._engine.connect() as connection:
            others = select(document.model).where(document.model != self._model.name).limit(1)
            other = connection.scalar(others)
        if other and not reembed:
            raise IngestError(
                f"There are documents with vectors of {other}, which can't be compared with those of "
                f"{self._model.name}: set KNOWLEDGE_EMBEDDINGS={other}, or make all anew with --reembed."
            )

    def prune(self, paths: Sequence[str], files: Sequence[Readable]) -> None:
        """Remove the documents under the paths whose files are gone."""
        document = stored.Document
        with self._engine.begin() as connection:
            name = func.coalesce(document.name, document.source)
            # Without a place they have no name beside their source.
            here = (
                (document.name.is_(None),)
                if self._place is None
                else (
                    document.owner.is_not_distinct_from(self._place.owner),
                    document.collection == self._place.collection,
                )
            )
            there = dict(connection.execute(select(document.source, name).where(*here)).all())
            kept = {path.as_posix() for path in files}
            gone = sorted(
                source
                for source, name in there.items()
                if name not in kept and any(_is_under(name, path) for path in paths)
            )
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
        there: set[Any] = set()
        with self._engine.connect() as connection:
            for passage in {text.table for text in texts}:
                sources = [text.source for text in texts]
                here = select(passage.source, passage.hash).where(passage.source.in_(sources))
                there.update(connection.execute(here).all())
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
        document, passage = stored.Document, text.table
        row = {"hash": b"", **text.columns}
        upsert = postgresql.insert(document).values(source=text.source, model=self._model.name, **row)
        with self._engine.connect() as connection:
            # No text has this hash, so that the document counts as changed until it is complete.
            connection.execute(upsert.on_conflict_do_update(index_elements=["source"], set_=row))
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
            connection.execute(insert(text.table), rows)

    def _write(self, text: Text, vectors: Mapping[bytes, Vector]) -> bool:
        """Write all of a document; or nothing, where another process removed a passage that was there."""
        document, passage = stored.Document, text.table
        row = {"hash": text.hash, "model": self._model.name, "updated_at": func.now(), **text.columns}
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


def ingest(paths: Sequence[str], *, prune: bool, reembed: bool, place: Place | None = None) -> bool:
    """Ingest the files under the paths and tell of it; return whether all of them could be read."""
    console = Console(soft_wrap=True, highlight=False, markup=False)
    files, model = find(paths), current_embeddings()
    if model.name == DEMONSTRATION:
        console.print("No key is set: these vectors are a demonstration and know nothing of meaning.")
    engine = sync_engine(application_name="ingest")
    ingestion = Ingestion(engine, model, place)
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


def _collection(value: str) -> str:
    if not re.fullmatch(COLLECTION, value):
        raise argparse.ArgumentTypeError("must be up to 64 letters, digits, dots, dashes and underscores")
    return value


def main(arguments: Sequence[str]) -> int:
    """Ingest, and return the exit code: 0 if all files could be read, else 1.

    Raises:
        ChassisError: saying what is wrong, and what to do.
    """
    parser = argparse.ArgumentParser(
        prog="python -m chassis ingest", description="Give the knowledge agent documents."
    )
    parser.add_argument(
        "paths",
        nargs="+",
        metavar="PATH",
        help=f"a folder, a file ({', '.join(SUFFIXES)}), or s3://BUCKET/PREFIX",
    )
    parser.add_argument(
        "--prune", action="store_true", help="remove documents whose files under PATH are gone"
    )
    parser.add_argument("--reembed", action="store_true", help="replace the vectors of another model")
    parser.add_argument(
        "--owner", help="who alone is answered from them: a key's id, or user: and what the issuer says"
    )
    parser.add_argument("--collection", help="how /v1/documents lists them", type=_collection)
    options = parser.parse_args(arguments)
    place = None
    if options.owner or options.collection:
        place = Place(options.owner, options.collection or "files")
    try:
        done = ingest(options.paths, prune=options.prune, reembed=options.reembed, place=place)
        return 0 if done else 1
    except ProgrammingError as error:
        if not isinstance(error.orig, UndefinedTable):
            raise
        raise IngestError(
            "The tables are missing. Make them: alembic -c db/alembic.ini upgrade head"
        ) from error
    except (AgentRunError, OperationalError) as error:
        raise IngestError(f"{explain(error)} What is written stays: run it again to go on.") from error
