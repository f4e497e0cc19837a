"""Documents from a bucket, of a real server that speaks S3."""

from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import URL, text

pytest.importorskip("moto", reason='For buckets: uv pip install obstore "moto[server,s3]"')
pytest.importorskip("obstore", reason='For buckets: uv pip install obstore "moto[server,s3]"')

import httpx
from moto.server import ThreadedMotoServer
from obstore.store import S3Store

from chassis.__main__ import main
from chassis.database.engine import sync_engine
from chassis.testing.service import HIDDEN, upgrade
from chassis.tests.files import pdf
from chassis.tests.test_documents import docx


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a server with a bucket."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    address = f"http://{host}:{port}"
    for name, value in {
        "AWS_ENDPOINT_URL": address,
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    httpx.put(f"{address}/library").raise_for_status()
    yield address
    server.stop()


def test_a_bucket_is_read_by_command(
    bucket: str,
    new_database: Callable[[], URL],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    database = new_database()
    upgrade(database)
    monkeypatch.setenv("DATABASE_URL", database.render_as_string(hide_password=False))
    for name in ("OPENAI_API_KEY", "RUNTIME_ENV"):
        assert HIDDEN.fullmatch(name)
        monkeypatch.delenv(name, raising=False)
    objects = {
        "docs/a.md": b"# Otters\n\nOtters hold hands.",
        "docs/deep/b.pdf": pdf("Badgers dig"),
        "docs/c.docx": docx("Foxes", "Foxes bark"),
        "docs/.hidden.md": b"no",
        "docs/d.png": b"\x89PNG",
        "docs/broken.pdf": b"%PDF-1.7",
        "docs-other/e.md": b"elsewhere",
    }
    for key, data in objects.items():
        httpx.put(f"{bucket}/library/{key}", content=data).raise_for_status()

    def ingest(*arguments: str) -> str:
        main(["ingest", *arguments])
        captured = capsys.readouterr()
        return captured.out + captured.err

    def sources() -> set[str]:
        engine = sync_engine(database)
        with engine.connect() as connection:
            found = set(connection.scalars(text("SELECT source FROM documents")))
        engine.dispose()
        return found

    told = ingest("s3://library/docs/")
    assert "3 written" in told
    assert "s3://library/docs/broken.pdf is no PDF that can be read" in told
    assert sources() == {f"s3://library/docs/{name}" for name in ("a.md", "deep/b.pdf", "c.docx")}
    assert "3 unchanged" in ingest("s3://library/docs")
    S3Store("library").delete("docs/a.md")
    assert "1 removed" in ingest("s3://library/docs", "--prune")
    assert "s3://library/docs/a.md" not in sources()
    assert "names no bucket" in ingest("s3://")
    assert "s3://nowhere/x can't be listed" in ingest("s3://nowhere/x")
