"""The knowledge agent: documents in, whatever happens meanwhile; passages and sources out."""

import importlib
import inspect
import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import URL, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from chassis.__main__ import main
from chassis.database.engine import async_engine, session_factory, sync_engine
from chassis.knowledge import ingest
from chassis.knowledge.embeddings import EmbeddingsError, current_embeddings, resolve
from chassis.knowledge.passages import SIZE, split
from chassis.knowledge.search import SEARCH, find_passages
from chassis.settings import WORKSPACE
from chassis.testing.client import SSE, check_problem, events, wait_for
from chassis.testing.service import HIDDEN, clean_env, upgrade

# A corpus that is everywhere: what the standard library says of itself.
MODULES = """argparse array ast base64 binascii bisect bz2 calendar cmath collections configparser contextlib copy
    csv datetime difflib doctest fnmatch functools glob gzip hashlib heapq hmac html imaplib inspect io ipaddress
    itertools json locale logging lzma math mimetypes optparse pathlib pprint queue random re secrets selectors
    shlex shutil signal smtplib socket socketserver sqlite3 statistics string subprocess tarfile tempfile textwrap
    threading time traceback unicodedata urllib.parse uuid weakref zipfile zlib""".split()  # noqa: SIM905 -- or it would fill sixty lines
# Questions, and the heading of the passage that answers each.
QUESTIONS = {
    "How do I compress bytes with gzip?": "gzip.compress",
    "read a compressed file as if it were a normal one": "gzip.open",
    "split a shell command line into words": "shlex.split",
    "quote a string safely for use in a shell": "shlex.quote",
    "copy a whole directory tree": "shutil.copytree",
    "delete a folder with everything in it": "shutil.rmtree",
    "where is the executable of a program on the PATH": "shutil.which",
    "How much disk space is free?": "shutil.disk_usage",
    "make a temporary directory that is removed afterwards": "tempfile.TemporaryDirectory",
    "the median of a list of numbers": "statistics.median",
    "standard deviation of a sample": "statistics.stdev",
    "greatest common divisor": "math.gcd",
    "cache the results of a function": "functools.lru_cache",
    "fill in some arguments of a function beforehand": "functools.partial",
    "insert into a sorted list so that it stays sorted": "bisect.insort_right",
    "the largest elements of an iterable": "heapq.nlargest",
    "count how often each element occurs": "collections.Counter",
    "dictionary with a default value for missing keys": "collections.defaultdict",
    "Which hosts belong to an IP network?": "ipaddress.ip_network",
    "escape special HTML characters such as < and &": "html.escape",
    "encode binary data as base64": "base64.b64encode",
    "random token in hexadecimal for passwords": "secrets.token_hex",
    "turn a Python object into a JSON string": "json.dumps",
    "suppress an exception in a with block": "contextlib.suppress",
    "close matches of a word that was misspelt": "difflib.get_close_matches",
    "wrap a paragraph to a given width": "textwrap.wrap",
    "remove common leading whitespace from lines": "textwrap.dedent",
    "run a command and get its output": "subprocess.check_output",
    "match file names against shell patterns": "fnmatch.fnmatch",
    "parse a URL into its parts": "urllib.parse.urlparse",
    "format the traceback of an exception": "traceback.format_exc",
    "deep copy of nested objects": "copy.deepcopy",
    "evaluate a literal expression safely from a string": "ast.literal_eval",
    "pretty-print nested data": "pprint.pprint",
}
# Those of which even the demonstration, which knows nothing of meaning, must have the answer at the top.
SURE = [
    "How do I compress bytes with gzip?",
    "copy a whole directory tree",
    "How much disk space is free?",
    "greatest common divisor",
    "escape special HTML characters such as < and &",
    "remove common leading whitespace from lines",
]
ROWS = text("SELECT source, hash, title, text, md5(embedding::text) FROM passages ORDER BY source, hash")
# Keeping it takes most of the time, and makes no difference to the rows.
WITHOUT_INDEX = text("DROP INDEX ix_passages_embedding")
DOCUMENTS = text("SELECT source, hash, model, updated_at FROM documents ORDER BY source")


def write_corpus(folder: Path) -> None:
    """Write a file for each module, with a heading for each thing that is documented."""
    for name in MODULES:
        module = importlib.import_module(name)
        lines = [f"# {name}\n\n{inspect.getdoc(module) or ''}\n"]
        for key, value in sorted(vars(module).items()):
            if getattr(value, "__module__", "") not in {name, f"_{name}"} or key.startswith("_"):
                continue
            if callable(value) and (documentation := inspect.getdoc(value)):
                lines.append(f"## {name}.{key}\n\n{documentation}\n")
            for method, function in sorted(vars(value).items()) if inspect.isclass(value) else ():
                if not method.startswith("_") and (documentation := inspect.getdoc(function)):
                    lines.append(f"### {name}.{key}.{method}\n\n{documentation}\n")
        (folder / f"{name}.md").write_text("\n".join(lines), encoding="utf-8")


def address(url: URL) -> str:
    return url.render_as_string(hide_password=False)


def rows(url: URL, statement: Any = ROWS, **values: Any) -> list[Any]:
    engine = sync_engine(url)
    with engine.begin() as connection:
        result = connection.execute(statement, values)
        found = list(result.all()) if result.returns_rows else []
    engine.dispose()
    return found


def start_ingesting(url: URL, *paths: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "chassis", "ingest", *paths],
        cwd=WORKSPACE,
        env=clean_env(DATABASE_URL=address(url)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


Ingesting = Callable[..., tuple[int, str]]


@pytest.fixture
def ingesting(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Ingesting]:
    """Run the command in this process; return its exit code and what it printed."""

    def run(url: URL, *arguments: str | Path, **variables: str) -> tuple[int, str]:
        with monkeypatch.context() as patch:
            for name in filter(HIDDEN.fullmatch, list(os.environ)):
                patch.delenv(name)
            for name, value in {"DATABASE_URL": address(url), **variables}.items():
                patch.setenv(name, value)
            current_embeddings.cache_clear()
            code = main(["ingest", *map(str, arguments)])
            printed = capsys.readouterr()
        return code, printed.out + printed.err

    yield run
    current_embeddings.cache_clear()


@pytest.fixture
def empty(new_database: Callable[[], URL]) -> URL:
    url = new_database()
    upgrade(url)
    return url


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    write_corpus(folder)
    return folder


@pytest.fixture(scope="module")
def library(new_database: Callable[[], URL], corpus: Path) -> URL:
    """A database with the corpus, from an ingestion that was killed half-way, and repeated by two at once."""
    url = new_database()
    upgrade(url)
    rows(url, WITHOUT_INDEX)
    killed = start_ingesting(url, corpus)
    wait_for(lambda: rows(url, text("SELECT FROM passages OFFSET 700 LIMIT 1")), seconds=60)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    before = set(rows(url))
    both = [start_ingesting(url, corpus) for _ in range(2)]
    printed = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], printed
    after = set(rows(url))
    assert before < after
    assert len(after) > 2_000
    assert 700 < len(before) < len(after) - 700
    return url


def test_killed_and_repeated_by_two_makes_the_same_rows_as_in_one_go(
    library: URL, empty: URL, corpus: Path, ingesting: Ingesting
) -> None:
    rows(empty, WITHOUT_INDEX)
    assert ingesting(empty, corpus)[0] == 0
    assert rows(library) == rows(empty)
    before = rows(library, DOCUMENTS)
    assert [row[:3] for row in before] == [row[:3] for row in rows(empty, DOCUMENTS)]
    code, printed = ingesting(library, corpus)
    assert code == 0
    assert f"0 written (0 new passages), {len(MODULES)} unchanged, 0 removed" in printed
    assert rows(library, DOCUMENTS) == before


def test_a_changed_document_is_replaced_and_a_removed_one_pruned(
    empty: URL, tmp_path: Path, ingesting: Ingesting
) -> None:
    versions = text("SELECT title, text, xmin::text, ctid::text FROM passages")
    changed, removed, other = tmp_path / "a/changed.md", tmp_path / "a/removed.txt", tmp_path / "b/other.rst"
    for path in (changed, removed, other):
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"# One\n\nthe first of {path.stem}\n\n# Two\n\nthe second of {path.stem}\n")
    assert ingesting(empty, tmp_path)[0] == 0
    before = {row.title + row.text: row for row in rows(empty, versions)}
    assert len(before) == 6

    changed.write_text("# One\n\nthe first of changed\n\n# Two\n\nanother second\n\n# Three\n\na third\n")
    removed.unlink()
    _, printed = ingesting(empty, tmp_path)
    assert "1 written (2 new passages), 1 unchanged, 0 removed" in printed
    after = {row.title + row.text: row for row in rows(empty, versions)}
    assert after.keys() - before.keys() == {"Twoanother second", "Threea third"}
    assert before.keys() - after.keys() == {"Twothe second of changed"}
    assert all(after[key] == before[key] for key in after.keys() & before.keys())

    other.unlink()
    assert "1 removed" in ingesting(empty, "--prune", tmp_path / "a")[1]
    assert {row.source for row in rows(empty)} == {changed.as_posix(), other.as_posix()}
    changed.write_text("")
    assert ingesting(empty, changed)[0] == 0
    assert {row.source for row in rows(empty)} == {other.as_posix()}


def test_mistakes_are_explained(
    empty: URL, new_database: Callable[[], URL], tmp_path: Path, ingesting: Ingesting
) -> None:
    code, printed = ingesting(empty, tmp_path / "nowhere")
    assert (code, printed.count("\n")) == (1, 1)
    assert "There is no file or folder" in printed
    (tmp_path / ".hidden.md").write_text("x")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    assert "nothing to read: no file that ends in .md, .rst, .txt" in ingesting(empty, tmp_path)[1]

    (tmp_path / "latin.txt").write_bytes("Grüße".encode("latin-1"))
    (tmp_path / "good.txt").write_bytes("\ufeffGrüße\r\nund \0 🦜".encode())
    code, printed = ingesting(empty, tmp_path)
    assert code == 1
    assert f"Left out: {tmp_path / 'latin.txt'} is not UTF-8" in printed
    assert "Documents: 1 written (1 new passages), 0 unchanged, 0 removed, 1 left out." in printed
    assert [row.text for row in rows(empty)] == ["Grüße\nund  🦜"]

    (tmp_path / "latin.txt").unlink()
    code, printed = ingesting(new_database(), tmp_path)
    assert (code, printed.splitlines()[-1]) == (
        1,
        "The tables are missing. Make them: alembic -c db/alembic.ini upgrade head",
    )
    production = {"RUNTIME_ENV": "prd"}
    assert "Set KNOWLEDGE_EMBEDDINGS to PROVIDER:MODEL" in ingesting(empty, tmp_path, **production)[1]
    named = {"KNOWLEDGE_EMBEDDINGS": "demonstration"}
    assert "The demonstration is for dev only" in ingesting(empty, tmp_path, **production, **named)[1]
    for name, words in (
        ("openai:text-embedding-3-small", "OPENAI_API_KEY"),
        ("nobody:x", "nobody"),
        ("x", "provider prefix"),
    ):
        code, printed = ingesting(empty, tmp_path, KNOWLEDGE_EMBEDDINGS=name)
        assert code == 1
        assert printed.startswith(f"KNOWLEDGE_EMBEDDINGS={name} can't be used:")
        assert words in printed


def test_a_name_that_is_not_utf8_ends_nothing(empty: URL, tmp_path: Path, ingesting: Ingesting) -> None:
    names = [b"a.md", b"b-Gr\xfc\xdfe.md", b"c\xff/d.md", "e-Grüße.md".encode(), b"f.md"]
    for name in names:
        path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
        try:
            path.parent.mkdir(exist_ok=True)
            path.write_text(f"words of {name!r}", encoding="utf-8")
        except OSError as error:  # of file systems that take only UTF-8
            pytest.skip(f"This file system has no such names: {error}")
    code, printed = ingesting(empty, tmp_path)
    assert code == 1
    for name in names[1:3]:
        assert f"Left out: {tmp_path}/{name.decode(errors='replace')} has a name that is not UTF-8" in printed
    assert "3 written (3 new passages), 0 unchanged, 0 removed, 2 left out." in printed
    assert {Path(row.source).name for row in rows(empty)} == {"a.md", "e-Grüße.md", "f.md"}
    assert "There is no file or folder" in ingesting(empty, os.fsdecode(b"no\xff"))[1]
    assert "0 removed" in ingesting(empty, "--prune", tmp_path)[1]


def test_the_default_follows_the_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in filter(HIDDEN.fullmatch, list(os.environ)):
        monkeypatch.delenv(name)
    assert resolve(os.environ).name == "demonstration"
    monkeypatch.setenv("OPENAI_API_KEY", "x")
    monkeypatch.setenv("GOOGLE_API_KEY", "x")
    assert resolve(os.environ).name == "openai:text-embedding-3-small"
    with pytest.raises(EmbeddingsError, match="Anthropic has no such models"):
        resolve({"RUNTIME_ENV": "prd", "ANTHROPIC_API_KEY": "x"})


class Provider(ThreadingHTTPServer):
    """A provider that speaks OpenAI's protocol for vectors, and what it was asked."""

    def __init__(self, database: URL) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.database = database
        self.asked: list[dict[str, Any]] = []
        self.transactions = 0
        self.meanwhile: Any = text("SELECT")
        self.status = 200
        self.shorter_by = 0
        # How many requests are answered before it says that it allows no more.
        self.allows = 1_000
        self.texts: list[str] = []


class Handler(BaseHTTPRequestHandler):
    server: Provider

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(asked)
        self.server.transactions += len(rows(self.server.database, OPEN_TRANSACTIONS))
        rows(self.server.database, self.server.meanwhile)
        length = asked["dimensions"] - self.server.shorter_by
        data = [
            {"object": "embedding", "index": index, "embedding": [float(len(words) % 7 + 1)] * length}
            for index, words in enumerate(asked["input"])
        ]
        usage = {"prompt_tokens": 1, "total_tokens": 1}
        body = json.dumps({"object": "list", "data": data, "model": asked["model"], "usage": usage}).encode()
        refused = len(self.server.asked) > self.server.allows
        if not refused:
            self.server.texts += asked["input"]
        self.send_response(429 if refused else self.server.status)
        self.send_header("X-Should-Retry", "false")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


OPEN_TRANSACTIONS = text(
    "SELECT FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'ingest'"
    " AND state <> 'idle'"
)


@pytest.fixture
def provider(empty: URL) -> Iterator[Provider]:
    with Provider(empty) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def key_for(provider: Provider) -> dict[str, str]:
    return {"OPENAI_API_KEY": "x", "OPENAI_BASE_URL": f"http://127.0.0.1:{provider.server_port}/v1"}


def test_a_passage_that_another_process_removes_meanwhile_is_made_again(
    empty: URL, tmp_path: Path, provider: Provider, ingesting: Ingesting
) -> None:
    document = tmp_path / "document.md"
    for heading in ("B", "C"):
        document.write_text(f"# A\n\nkept\n\n# {heading}\n\nchanged")
        assert ingesting(empty, document, **key_for(provider))[0] == 0
        provider.meanwhile = text("DELETE FROM passages")
    assert {row.title for row in rows(empty)} == {"A", "C"}
    assert [len(asked["input"]) for asked in provider.asked] == [2, 1, 1]


def test_a_large_document_gets_in_however_often_the_provider_stops(
    empty: URL, tmp_path: Path, provider: Provider, ingesting: Ingesting
) -> None:
    key = key_for(provider)

    def write(name: str, passages: int, version: str = "") -> None:
        parts = [f"# {name}{version} {number}\n\nwords of {name}" for number in range(passages)]
        (tmp_path / f"{name}.md").write_text("\n\n".join(parts), encoding="utf-8")

    for name, passages in (("a-small", 3), ("b-large", 300), ("c-small", 2)):
        write(name, passages)
    for there in (96, 192, 288, 303, 305):
        provider.allows = len(provider.asked) + 1
        code, printed = ingesting(empty, tmp_path, **key)
        assert code == (there < 305), printed
        assert ("allows no more requests for now" in printed) == (there < 305)
        assert len(rows(empty)) == there
        # A small one is there as soon as its own vectors are.
        assert {row.source.rpartition("/")[2] for row in rows(empty)} >= {"a-small.md", "b-large.md"}
    assert sorted(Counter(provider.texts).values()) == [1] * 305
    provider.allows = 1_000
    assert "0 written (0 new passages), 3 unchanged" in ingesting(empty, tmp_path, **key)[1]

    # What is changed half-way and then back again has neither more nor less than before.
    before = rows(empty)
    write("b-large", 300, " new")
    provider.allows = len(provider.asked) + 1
    assert ingesting(empty, tmp_path, **key)[0] == 1
    assert len(rows(empty)) == 305 + ingest.BATCH
    write("b-large", 300)
    assert "1 written (0 new passages), 2 unchanged" in ingesting(empty, tmp_path, **key)[1]
    assert rows(empty) == before


def test_a_provider_makes_the_vectors_and_no_transaction_waits_for_it(
    empty: URL, corpus: Path, provider: Provider, ingesting: Ingesting
) -> None:
    key = key_for(provider)
    paths = [corpus / "json.md", corpus / "logging.md"]
    code, printed = ingesting(empty, *paths, **key)
    assert code == 0, printed
    assert {row.model for row in rows(empty, DOCUMENTS)} == {"openai:text-embedding-3-small"}
    assert {asked["dimensions"] for asked in provider.asked} == {1024}
    assert sum(len(asked["input"]) for asked in provider.asked) == len(rows(empty)) > ingest.BATCH
    assert max(len(asked["input"]) for asked in provider.asked) <= ingest.BATCH
    assert provider.transactions == 0

    # Without the key the demonstration would compare its vectors with the provider's.
    code, printed = ingesting(empty, *paths)
    assert code == 1
    assert "documents with vectors of openai:text-embedding-3-small" in printed
    before = len(rows(empty))
    assert ingesting(empty, "--reembed", paths[0])[0] == 0
    assert [row.model for row in rows(empty, DOCUMENTS)] == ["demonstration", "openai:text-embedding-3-small"]
    assert ingesting(empty, "--reembed", *paths)[0] == 0
    assert {row.model for row in rows(empty, DOCUMENTS)} == {"demonstration"}
    assert len(rows(empty)) == before

    provider.shorter_by = 1
    assert "makes vectors of 1023 numbers, but" in ingesting(empty, "--reembed", *paths, **key)[1]
    provider.status = 401
    code, printed = ingesting(empty, "--reembed", *paths, **key)
    assert code == 1
    assert "refuses the service's key" in printed
    assert "run it again to go on" in printed


@pytest.fixture
async def exact(library: URL) -> AsyncIterator[async_sessionmaker[AsyncSession]]:
    """Sessions that compare with all vectors, so that what they find is the same each time."""
    engine = async_engine(library.update_query_dict({"options": "-c enable_indexscan=off"}))
    yield session_factory(engine)
    await engine.dispose()


@pytest.mark.anyio
async def test_both_ways_of_searching_find_more_than_one(exact: async_sessionmaker[AsyncSession]) -> None:
    demonstration = resolve({})
    found = dict.fromkeys(("meaning", "words", "both"), 0.0)
    async with exact() as session:
        for question, title in QUESTIONS.items():
            values = {"language": "english", "vector": await demonstration.of_query(question), "results": 10}
            for way, words, model in (
                ("meaning", "", "demonstration"),
                ("words", question, "none"),
                ("both", question, "demonstration"),
            ):
                hits = await session.execute(
                    SEARCH, {"query": words, "model": model, "owner": None, **values}
                )
                titles = [row.title.rpartition(" > ")[2] for row in hits]
                found[way] += 1 / (titles.index(title) + 1) if title in titles else 0
    assert found["both"] > found["meaning"]
    assert found["both"] > found["words"]


@pytest.mark.anyio
@pytest.mark.parametrize("question", SURE)
async def test_the_passage_that_answers_is_among_the_first(
    question: str, exact: async_sessionmaker[AsyncSession]
) -> None:
    hits = await find_passages(exact, resolve({}), question)
    assert QUESTIONS[question] in [hit.title.rpartition(" > ")[2] for hit in hits[:3]]
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def test_the_search_can_use_both_indexes(empty: URL) -> None:
    # Few passages PostgreSQL would rather read one by one.
    url = empty.update_query_dict({"options": "-c enable_seqscan=off"})
    values = {"query": "gzip", "language": "english", "vector": "[" + "1," * 1023 + "1]"}
    plan = str(
        rows(url, text("EXPLAIN " + SEARCH.text), **values, model="demonstration", owner="a", results=5)
    )
    assert "ix_passages_embedding" in plan
    assert "ix_passages_words" in plan


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("query", "anything"),
    [
        ("", False),
        (" \0\n", False),
        ("'; DROP TABLE passages; --", True),
        ("a' & !b | (c:*) <-> \\ \\' '' :x %s %(y)s {z}", True),
        ("the of and", True),
        ("\ud800 half a pair", True),
        ("🦜 Grüße 日本語 \u202e", True),
        ("word " * 50_000, True),
        ("http://example.com/?a=1&b='2'", True),
    ],
)
async def test_odd_queries_do_no_harm(
    query: str, anything: bool, exact: async_sessionmaker[AsyncSession]
) -> None:
    assert bool(await find_passages(exact, resolve({}), query)) == anything


def test_cutting_keeps_all_words_and_follows_headings() -> None:
    words = [f"word{number}" for number in range(2_000)]
    markdown = f"before\n\n# A\n\n```\n# no heading\n```\n\n## B ##\n\n{' '.join(words)}\n\n# C\n\nlast"
    passages = list(split(markdown, "name"))
    assert [passage.title for passage in passages[:2]] == ["name", "A"]
    assert {passage.title for passage in passages[2:-1]} == {"A > B"}
    assert (passages[-1].title, passages[-1].text) == ("C", "last")
    assert all(len(passage.text) <= SIZE + 2 for passage in passages)
    kept = " ".join(passage.text for passage in passages if passage.title == "A > B").split()
    assert list(dict.fromkeys(kept)) == words
    assert len(words) < len(kept) < len(words) * 1.3
    underlined = "=====\nTitle\n=====\n\na\n\nSub\n---\n\nb\n\nSub 2\n-----\n\nc"
    assert list(split(underlined, "name")) == [("Title", "a"), ("Title > Sub", "b"), ("Title > Sub 2", "c")]
    assert "".join(passage.text for passage in split("x" * 5_000, "name")) == "x" * 5_000


def test_the_agent_answers_with_sources_over_http(
    dev: httpx.Client, database: URL, tmp_path: Path, ingesting: Ingesting
) -> None:
    (tmp_path / "holidays.md").write_text("# Leave\n\nEach person has 31 days of holidays a year.\n")
    (tmp_path / "lunch.md").write_text("# Lunch\n\nThe kitchen opens at noon.\n")
    url, question = "/v1/agents/knowledge/runs", {"input": "How many days of holidays do I have?"}
    agents = {agent["id"] for agent in dev.get("/v1/agents").json()["agents"]}
    assert "knowledge" in agents
    nothing = dev.post(url, json=question)
    assert nothing.status_code == 200, nothing.text

    assert ingesting(database, tmp_path)[0] == 0
    answer = dev.post(url, json=question).json()
    assert "31 days of holidays" in answer["output"]
    assert "holidays.md" in answer["output"]
    results = [
        data for name, data in events(dev.post(url, json=question, headers=SSE)) if name == "tool_result"
    ]
    assert [result["name"] for result in results] == ["search_documents"]
    best = json.loads(results[0]["content"])[0]
    assert best.keys() == {"source", "title", "text", "score"}
    assert (best["source"], best["title"]) == ((tmp_path / "holidays.md").as_posix(), "Leave")

    rows(database, text("UPDATE documents SET model = 'another'"))
    check_problem(dev.post(url, json=question), 503, "The documents have vectors of another")
    rows(database, text("DELETE FROM documents"))
