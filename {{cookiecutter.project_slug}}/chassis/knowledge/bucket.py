"""Documents in a bucket, `s3://BUCKET/PREFIX`. Credentials are found as by every program of AWS's.

The client is an extra of the workspace's own choice: `uv add obstore`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from chassis.knowledge.reading import SUFFIXES, UnreadableError
from chassis.settings import ChassisError

SCHEME = "s3://"


class BucketError(ChassisError):
    """A bucket can't be read; the message says what to do."""


@dataclass(frozen=True, slots=True)
class BucketFile:
    """An object of a bucket, as far as it is like a file."""

    url: str
    key: str
    store: Any

    def as_posix(self) -> str:
        """Return its address."""
        return self.url

    def read_bytes(self) -> bytes:
        """Return its contents.

        Raises:
            UnreadableError: if it can't be had.
        """
        from obstore.exceptions import BaseError

        try:
            return bytes(self.store.get(self.key).bytes())
        except (BaseError, OSError) as error:
            raise UnreadableError(f"can't be fetched: {_reason(error)}") from error


def find(url: str) -> list[BucketFile]:
    """Return the objects under an address that can be read, without hidden ones.

    Raises:
        BucketError: if they can't be listed.
    """
    try:
        from obstore.exceptions import BaseError
        from obstore.store import S3Store
    except ImportError as error:
        raise BucketError("A bucket is read with obstore, which isn't installed: uv add obstore") from error
    parts = urlsplit(url)
    if not parts.netloc:
        raise BucketError(f"{url} names no bucket: write s3://BUCKET/PREFIX.")
    try:
        store = S3Store(parts.netloc)
        return sorted(_objects(store, parts.netloc, parts.path.strip("/")), key=BucketFile.as_posix)
    except (BaseError, OSError) as error:
        raise BucketError(f"{url} can't be listed: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _objects(store: Any, bucket: str, prefix: str) -> Iterator[BucketFile]:
    for page in store.list(prefix or None):
        for entry in page:
            path = PurePosixPath(entry["path"])
            hidden = any(part.startswith(".") for part in path.parts)
            if path.suffix.lower() in SUFFIXES and not hidden:
                yield BucketFile(f"{SCHEME}{bucket}/{path}", str(path), store)
