"""Documents by the API: of all kinds, in collections that are one owner's or everybody's, and found by nobody else."""

import io
import json
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from alembic import command
from sqlalchemy import URL, select, text

from chassis.database.engine import sync_engine
from chassis.knowledge import reading
from chassis.knowledge.passages import split
from chassis.knowledge.reading import UnreadableError, kind_of, read
from chassis.knowledge.tables import Document
from chassis.settings import WORKSPACE
from chassis.testing.client import check_problem
from chassis.testing.service import alembic_config_for, clean_env, upgrade
from chassis.tests.files import pdf
from chassis.tests.issuer import Issuer
from chassis.tests.service import create_key, create_limited_key, id_of, serving

WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
PACKAGE = "http://schemas.openxmlformats.org/package/2006"
HTML = b"""<!doctype html><html><head><title>T</title><style>p{}</style></head><body><nav>Menu</nav>
<h1>Rules</h1><p>Cats sleep.</p><script>evil()</script><table><tr><th>A</th></tr><tr><td>1</td></tr></table></body>"""


def docx(heading: str, *paragraphs: str) -> bytes:
    """A document as Word writes it, without all that may be left out."""
    style = '<w:pPr><w:pStyle w:val="Heading1"/></w:pPr>'
    body = f"<w:p>{style}<w:r><w:t>{heading}</w:t></w:r></w:p>"
    body += "".join(f"<w:p><w:r><w:t>{words}</w:t></w:r></w:p>" for words in paragraphs)
    kind = "application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"
    parts = {
        "[Content_Types].xml": f'<Types xmlns="{PACKAGE}/content-types"><Default Extension="rels" ContentType='
        '"application/vnd.openxmlformats-package.relationships+xml"/><Override PartName="/word/document.xml" '
        f'ContentType="{kind}"/></Types>',
        "_rels/.rels": f'<Relationships xmlns="{PACKAGE}/relationships"><Relationship Id="r1" '
        f'Type="{OFFICE}/officeDocument" Target="word/document.xml"/></Relationships>',
        "word/document.xml": f'<w:document xmlns:w="{WORD}"><w:body>{body}</w:body></w:document>',
        "word/styles.xml": f'<w:styles xmlns:w="{WORD}"><w:style w:type="paragraph" w:styleId="Heading1">'
        '<w:name w:val="heading 1"/></w:style></w:styles>',
    }
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return file.getvalue()


def put(
    client: httpx.Client, data: bytes, name: str, collection: str = "notes", **options: Any
) -> httpx.Response:
    return client.put(f"/v1/documents/{collection}/{name}", content=data, **options)


def found(client: httpx.Client, query: str, **options: Any) -> list[dict[str, Any]]:
    """What an agent's search finds for whoever asks."""
    words = f"call search_documents {json.dumps({'query': query})}"
    answer = client.post("/v1/agents/knowledge/runs", json={"input": words}, **options)
    assert answer.is_success, answer.text
    hits: list[dict[str, Any]] = json.loads(
        answer.json()["output"].removeprefix("The tool said:").strip() or "[]"
    )
    return hits


def names(hits: list[dict[str, Any]]) -> set[str]:
    return {hit["source"] for hit in hits}


# Reading


@pytest.mark.parametrize(
    ("data", "name", "words"),
    [
        (pdf("Dogs bark", "Second page"), "a.pdf", ["Dogs bark", "Second page"]),
        (pdf("By its contents"), "a", ["By its contents"]),
        (
            docx("Trains", "First class", "Fu\u00df & caf\u00e9".replace("&", "&amp;")),
            "a.docx",
            ["# Trains", "First class", "Fuß & café"],
        ),
        (HTML, "a.html", ["# Rules", "Cats sleep.", "| A |"]),
        (HTML, "a", ["# Rules"]),
        ("\ufeff# Ä\0".encode(), "a.md", ["# Ä"]),
    ],
)
def test_the_text_of_a_document(data: bytes, name: str, words: list[str]) -> None:
    got = read(data, name)
    assert [one for one in words if one not in got] == []
    assert not any(other in got for other in ("evil()", "Menu", "p{}", "\0", "\ufeff"))


def bomb() -> bytes:
    """A Word document of a few kilobytes that is gigabytes when it is unpacked."""
    file = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(docx("x"))) as small,
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as large,
    ):
        for name in small.namelist():
            if name != "word/document.xml":
                large.writestr(name, small.read(name))
        with large.open("word/document.xml", "w", force_zip64=True) as document:
            document.write(f'<w:document xmlns:w="{WORD}"><w:body><w:p><w:r><w:t>'.encode())
            for _ in range(300):
                document.write(b"x" * 1_000_000)
            document.write(b"</w:t></w:r></w:p></w:body></w:document>")
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "name", "words"),
    [
        (b"%PDF-1.7 nothing", "a.pdf", "is no PDF that can be read"),
        (b"just words", "a.pdf", "is no PDF that can be read"),
        (pdf(""), "a.pdf", "holds no text, only pictures"),
        (b"PK\x03\x04 nothing", "a.docx", "is no Word document"),
        (b"words", "a.docx", "is no Word document"),
        ("ä".encode("latin-1"), "a.txt", "is not UTF-8"),
        (b"<html>" + b"<div>" * 100_000, "a.html", "is nested too deeply|too much|too long|can be read"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_cannot_be_read(data: bytes, name: str, words: str) -> None:
    with pytest.raises(UnreadableError, match=words):
        read(data, name)


# Reads and cuts what it is given, in a process that can be ended: a pattern that goes astray holds its thread for days.
READ = """
import sys
from chassis.knowledge.passages import split
from chassis.knowledge.reading import read
print(sum(1 for _ in split(read(sys.stdin.buffer.read(), "a"), "a")))
"""
MEGABYTE = 1_000_000


@pytest.mark.parametrize(
    "data",
    [
        b"<!---->" * (MEGABYTE // 7) + b"x",
        b"<!-- " * (MEGABYTE // 5),
        b" " * MEGABYTE + b"x",
        b"# x" + b" " * MEGABYTE + b"y",
        b"# x" + b" #" * (MEGABYTE // 2) + b"y",
        b"# " + b"x" * 4 * MEGABYTE + b"\n## y" * MEGABYTE,
        b"-" * MEGABYTE + b"\nx\n" + b"-" * MEGABYTE + b"x",
        b"``\n" * (MEGABYTE // 3) + b"```\n" + b" " * MEGABYTE,
        b"\n" * MEGABYTE + b"x" + b"\n " * (MEGABYTE // 2),
    ],
    ids=lambda value: str(value[:12]),
)
def test_no_document_takes_more_time_than_its_size(data: bytes) -> None:
    command = [sys.executable, "-c", READ]
    subprocess.run(command, cwd=WORKSPACE, input=data, check=True, capture_output=True, timeout=45)


@pytest.mark.parametrize(
    ("line", "heading"),
    [
        ("# A", "A"),
        ("# A ##", "A"),
        ("#  A#\t#", "A#"),
        ("## C# and F# \t###", "C# and F#"),
        ("# #", "#"),
        ("# ###", "#"),
        ("# A  ", "A"),
    ],
)
def test_a_heading_without_what_it_ends_in(line: str, heading: str) -> None:
    assert list(split(f"{line}\n\nwords\n", "name")) == [(heading, "words")]


@pytest.mark.skipif(sys.platform == "win32", reason="There are no such limits.")
def test_a_bomb_harms_nobody() -> None:
    with pytest.raises(UnreadableError, match=r"memory|too long|characters|can be read"):
        read(bomb(), "bomb.docx", seconds=20, megabytes=256)


def test_the_reader_knows_nothing_of_the_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spy = tmp_path / "spy.py"
    spy.write_text(
        "import os, sys; sys.stdout.write(' '.join(sorted(os.environ)) + ' ' + ' '.join(sys.modules))"
    )
    monkeypatch.setattr(reading, "WORKER", spy)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    seen = read(HTML, "a.html").split()
    assert "OPENAI_API_KEY" not in seen
    assert not any(name.startswith("chassis") for name in seen)
    assert kind_of(b"<!-- x -->\n<HTML>", "a") == "html"


# Whose they are


@pytest.fixture(scope="module")
def database(new_database: Callable[[], URL]) -> URL:
    """One of its own, since what is for all is found by all."""
    url = new_database()
    upgrade(url)
    return url


@pytest.fixture(scope="module")
def service(database: URL, logs: Path, model: dict[str, str], issuer: Issuer) -> Iterator[httpx.Client]:
    """The service where callers show who they are, and may keep three documents."""
    people = {"OIDC_ISSUER": issuer.address, "OIDC_AUDIENCE": "https://agents.example.com"}
    limits = {
        "KNOWLEDGE_DOCUMENTS_PER_OWNER": "3",
        "KNOWLEDGE_BYTES_PER_OWNER": "2100000",
        "API_MAX_UPLOAD_BYTES": "2100000",
    }
    with serving(
        logs / "documents", database, API_KEYS_REQUIRED="True", **limits, **people, **model
    ) as client:
        yield client


@pytest.fixture
def ada(database: URL) -> dict[str, str]:
    return {"Authorization": f"Bearer {create_key(database)}"}


bob = ada


@pytest.fixture
def librarian(database: URL) -> dict[str, str]:
    """Whoever may change the documents for all."""
    return {"Authorization": f"Bearer {create_key(database, 'librarian', '--manages-documents')}"}


def test_a_document_is_kept_replaced_and_taken_away(service: httpx.Client, ada: dict[str, str]) -> None:
    first = put(service, docx("Zebras", "Zebras graze at noon."), "zebra.docx", headers=ada)
    assert first.status_code == 201, first.text
    assert first.json().items() >= {"collection": "notes", "name": "zebra.docx", "shared": False}.items()
    [hit] = found(service, "zebras graze", headers=ada)
    assert (hit["source"], hit["title"]) == ("zebra.docx", "Zebras")
    assert put(service, pdf("Zebras sleep at noon."), "zebra.docx", headers=ada).status_code == 200
    [hit] = found(service, "zebras", headers=ada)
    assert "sleep" in hit["text"]
    read = service.get("/v1/documents/notes/zebra.docx", headers=ada).json()
    assert "Zebras sleep at noon." in read["text"]
    listed = service.get("/v1/documents?collection=notes", headers=ada).json()
    assert [one["name"] for one in listed["documents"] if not one["shared"]] == ["zebra.docx"]
    assert service.delete("/v1/documents/notes/zebra.docx", headers=ada).status_code == 204
    assert found(service, "zebras", headers=ada) == []
    check_problem(service.delete("/v1/documents/notes/zebra.docx", headers=ada), 404)


def tables_with(database: URL, words: str) -> set[str]:
    """The tables of passages that hold such a one."""
    engine = sync_engine(database)
    with engine.connect() as connection:
        found = {
            table
            for table in ("passages", "owned_passages")
            if connection.scalar(
                text(f"SELECT count(*) FROM {table} WHERE text LIKE :words"),
                {"words": words},
            )
        }
    engine.dispose()
    return found


def test_taking_the_revision_back_makes_nothing_everybodys(new_database: Callable[[], URL]) -> None:
    url = new_database()
    upgrade(url)
    engine = sync_engine(url)
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO documents (source, hash, model, owner) "
                "VALUES ('mine', '', 'm', 'ada'), ('everybodys', '', 'm', NULL)"
            )
        )
        for table, source in (("owned_passages", "mine"), ("passages", "everybodys")):
            connection.execute(
                text(
                    f"INSERT INTO {table} (source, hash, title, text, embedding) "
                    "VALUES (:source, '', '', :source, array_fill(0.1, ARRAY[1024])::vector)"
                ),
                {"source": source},
            )
    with engine.connect() as connection:
        command.downgrade(alembic_config_for(connection), "e4a1c8f70b36")
        connection.commit()
        assert list(connection.scalars(text("SELECT source FROM documents"))) == ["everybodys"]
        assert list(connection.scalars(text("SELECT text FROM passages"))) == ["everybodys"]
        command.upgrade(alembic_config_for(connection), "heads")
    engine.dispose()


@pytest.mark.parametrize("kind", ["keys", "people"])
def test_nobody_is_answered_from_what_is_not_theirs(
    service: httpx.Client, database: URL, issuer: Issuer, librarian: dict[str, str], kind: str
) -> None:
    """By search, by the agent, and by each operation; with many more documents of others than a search looks at."""
    shown = [create_key(database) if kind == "keys" else issuer.token(f"{kind}{n}") for n in range(2)]
    ada, bob = ({"Authorization": f"Bearer {each}"} for each in shown)
    secret = "\n\n".join(f"# Part {n}\n\nThe walrus password is tusk{n}." for n in range(60))
    assert put(service, secret.encode(), "secret.md", headers=ada).is_success
    # What 0.1.0 looks through, which knows no owners and may serve beside this version.
    assert tables_with(database, "%tusk7%") == {"owned_passages"}
    shared = b"The walrus lives in the north, and has no password."
    assert put(service, shared, f"{kind}.md", "all", headers=librarian, params={"shared": True}).is_success
    assert put(service, b"My walrus password is hidden elsewhere.", "mine.md", headers=bob).is_success
    for query in ("walrus password", "tusk1", "the walrus password is tusk7"):
        hits = found(service, query, headers=bob)
        assert "tusk" not in json.dumps(hits)
        assert "secret.md" not in names(hits)
    assert {"mine.md", f"{kind}.md"} <= names(found(service, "walrus password", headers=bob))
    assert "secret.md" in names(found(service, "walrus password tusk7", headers=ada))
    assert f"{kind}.md" in names(found(service, "walrus lives in the north", headers=ada))
    path = "/v1/documents/notes/secret.md"
    for method in ("GET", "DELETE"):
        for params in ({}, {"shared": "true"}):
            refused = service.request(method, path, headers=bob, params=params)
            assert refused.status_code in {403, 404}
            assert "tusk" not in refused.text
    listed = service.get("/v1/documents?limit=200", headers=bob).json()["documents"]
    assert "secret.md" not in {one["name"] for one in listed}
    assert {"mine.md", f"{kind}.md"} <= {one["name"] for one in listed}
    # One of the same name is another one.
    assert put(service, b"Nothing", "secret.md", headers=bob).status_code == 201
    assert "tusk7" in service.get(path, headers=ada).json()["text"]
    assert "is tusk5" not in service.get("/v1/me/data", headers=bob).text
    assert "is tusk5" in service.get("/v1/me/data", headers=ada).text
    assert service.delete("/v1/me/data", headers=ada).status_code == 204
    check_problem(service.get(path, headers=ada), 404)
    assert service.get(path, headers=bob).json()["text"] == "Nothing"
    for headers, where in ((librarian, {"shared": True}),):
        gone = service.delete(f"/v1/documents/all/{kind}.md", headers=headers, params=where)
        assert gone.status_code == 204


def test_who_may_change_what_is_for_all(
    service: httpx.Client, database: URL, ada: dict[str, str], librarian: dict[str, str]
) -> None:
    shared = {"shared": "true"}
    both = create_key(database, "both", "--manages-documents", "--acts-for-users")
    for headers in (ada, {"Authorization": f"Bearer {both}", "X-User-ID": "ada"}):
        check_problem(put(service, b"x", "a.md", headers=headers, params=shared), 403, "--manages-documents")
        refused = service.delete("/v1/documents/notes/a.md", headers=headers, params=shared)
        check_problem(refused, 403, "leave shared out")
    assert put(service, b"For all", "a.md", headers=librarian, params=shared).status_code == 201
    assert service.get("/v1/documents/notes/a.md", headers=ada, params=shared).json()["text"] == "For all"
    assert service.delete("/v1/documents/notes/a.md", headers=librarian, params=shared).status_code == 204


def test_limits_and_refusals(service: httpx.Client, ada: dict[str, str], bob: dict[str, str]) -> None:
    for number in range(3):
        assert put(service, f"Number {number}".encode(), f"{number}.md", headers=ada).status_code == 201
    check_problem(put(service, b"x", "3.md", headers=ada), 413, "You have 3 documents")
    assert put(service, b"Another", "2.md", headers=ada).status_code == 200
    for data, name, status, words in (
        (b"\xff\xfe", "a.txt", 422, "The document is not UTF-8."),
        (b"", "a.txt", 422, "The document holds no text."),
        (b"%PDF-1.7", "a.pdf", 422, "is no PDF"),
        (b"x" * 2_000_001, "a.txt", 422, "holds more than 2000000 characters"),
        (b"x" * 2_100_001, "a.txt", 413, "Send a smaller document"),
        (b"x", "a%2Fb.txt", 404, ""),
    ):
        check_problem(put(service, data, name, headers=bob), status, words)
    check_problem(put(service, b"x", "a.txt", "no%20collection", headers=bob), 422, "collection")
    check_problem(
        put(service, b"x" * 2_099_990, "2.md", headers=ada), 413, "have 16 bytes, this one 2099990, and"
    )
    # The last that was changed comes first, and a page ends where the next one starts.
    listed: list[str] = []
    cursor: str | None = None
    for size in (2, 1):
        params = {"limit": "2", "collection": "notes"} | ({"cursor": cursor} if cursor else {})
        page = service.get("/v1/documents", params=params, headers=ada).json()
        assert len(page["documents"]) == size
        listed += [one["name"] for one in page["documents"]]
        cursor = page["next_cursor"]
    assert listed == ["2.md", "1.md", "0.md"]
    assert cursor is None
    check_problem(service.get("/v1/documents?cursor=x", headers=ada), 422, "next_cursor")


def test_a_document_counts_as_a_run(service: httpx.Client, database: URL) -> None:
    key = {"Authorization": f"Bearer {create_limited_key(database, 2)}"}
    assert put(service, b"One", "a.md", headers=key).status_code == 201
    assert found(service, "one", headers=key)
    check_problem(put(service, b"Two", "a.md", headers=key), 429, "2 runs a minute")
    assert service.get("/v1/documents/notes/a.md", headers=key).json()["text"] == "One"


@pytest.mark.parametrize("name", ["KNOWLEDGE_DOCUMENTS_PER_OWNER", "KNOWLEDGE_BYTES_PER_OWNER"])
def test_limits_that_cannot_be_are_told_at_start(name: str) -> None:
    env = clean_env(DATABASE_URL="postgresql://localhost/none") | {name: "none"}
    command = [sys.executable, "-c", "import chassis.tests.app"]
    done = subprocess.run(command, cwd=WORKSPACE, env=env, capture_output=True, text=True, check=False)
    assert done.returncode
    assert f"The service can't start: {name}" in done.stderr


def test_a_text_is_only_loaded_where_it_is_shown() -> None:
    """It may be megabytes, and a list has two hundred."""
    assert "documents.text" not in str(select(Document))


def test_a_folder_by_command_for_one_owner(
    service: httpx.Client, database: URL, tmp_path: Path, model: dict[str, str], ada: dict[str, str]
) -> None:
    owner = id_of(ada["Authorization"].removeprefix("Bearer "))
    for name, data in (
        ("otter.docx", docx("Otters", "Otters hold hands.")),
        ("otter.pdf", pdf("Otters eat")),
    ):
        (tmp_path / name).write_bytes(data)
    (tmp_path / "broken.pdf").write_bytes(b"%PDF-1.7")

    def ingest(*options: str) -> str:
        address = database.render_as_string(hide_password=False)
        command = [sys.executable, "-m", "chassis", "ingest", str(tmp_path), *options]
        env = clean_env(DATABASE_URL=address, **model)
        done = subprocess.run(command, cwd=WORKSPACE, env=env, capture_output=True, text=True, check=False)
        assert done.returncode in {0, 1}, done.stderr
        return done.stdout

    mine = "--owner", owner, "--collection", "animals"
    told = ingest(*mine)
    assert "broken.pdf is no PDF that can be read" in told
    assert "2 written" in told
    assert "2 unchanged" in ingest(*mine)
    assert names(found(service, "otters", headers=ada)) == {
        str(tmp_path / "otter.docx"),
        str(tmp_path / "otter.pdf"),
    }
    other = {"Authorization": f"Bearer {create_key(database)}"}
    assert found(service, "otters", headers=other) == []
    (tmp_path / "otter.pdf").unlink()
    assert "1 removed" in ingest(*mine, "--prune")
    assert names(found(service, "otters", headers=ada)) == {str(tmp_path / "otter.docx")}


def test_what_there_was_before_is_everybodys(
    service: httpx.Client, database: URL, ada: dict[str, str]
) -> None:
    engine = sync_engine(database)
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO documents (source, hash, model) VALUES ('old.md', '\\x01', 'openai:text-embedding-3-small')"
            )
        )
        connection.execute(
            text(
                "INSERT INTO passages (source, hash, title, text, embedding) "
                "VALUES ('old.md', '\\x01', 'Old', 'The quokka smiles', array_fill(0.1, ARRAY[1024])::vector)"
            )
        )
    assert names(found(service, "quokka smiles", headers=ada)) == {"old.md"}
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM documents WHERE source = 'old.md'"))
    engine.dispose()
