"""All that belongs to one owner, a key or a person: to hand it over, or to erase it.

That is what the chassis keeps, and the rows of each table of the service's own that has a column `owner`.
"""

import json
from collections.abc import AsyncIterator, Iterator
from importlib import import_module
from typing import Any, cast

from pydantic_core import to_jsonable_python
from sqlalchemy import Enum, String, Table, delete, select, tuple_

from chassis.conversations.store import DatabaseConversationStore
from chassis.conversations.tables import Conversation
from chassis.database.base import Base
from chassis.database.engine import Sessions
from chassis.database.jsonb import restored
from chassis.keys.tables import ApiKeyUsage
from chassis.retention import portions
from chassis.runs.tables import Run

# Known by its name, as to Alembic: the package that imports every table of the service's own.
TABLES = "db.tables"
CONVERSATIONS = cast("Table", Conversation.__table__)
# Of which a row may be megabytes: how many are read at once.
LARGE = {"api_files": 1, "documents": 10}
RUNS, USAGE = cast("Table", Run.__table__), cast("Table", ApiKeyUsage.__table__)


def own_tables() -> Iterator[Table]:
    """Yield the tables of the service's own that say whose each row is, those that others point at last."""
    import_module(TABLES)
    for table in reversed(Base.metadata.sorted_tables):
        if table in (RUNS, USAGE) or "owner" not in table.columns:
            continue
        # A number, say, is somebody else's idea of an owner.
        kind = table.columns["owner"].type
        if isinstance(kind, String) and not isinstance(kind, Enum):
            yield table


async def export(sessions: Sessions, owner: str) -> AsyncIterator[str]:
    """Yield a line of JSON for each conversation, run, day's usage and own row: {"kind": ..., ...}."""
    store = DatabaseConversationStore(sessions)
    async for conversation in _pages(sessions, CONVERSATIONS, "scope", owner):
        entries = await store.load_entries(conversation["id"], scope=owner) or ()
        messages = [to_jsonable_python(entry.message, bytes_mode="base64") for entry in entries]
        kept = ("id", "title", "created_at", "updated_at")
        yield _line("conversation", {name: conversation[name] for name in kept} | {"messages": messages})
    for kind, table in (("run", RUNS), ("usage", USAGE)):
        async for row in _pages(sessions, table, "owner", owner):
            hidden = ("owner", "request_hash", "alive_at", "watched_at")
            yield _line(kind, {name: restored(value) for name, value in row.items() if name not in hidden})
    for table in own_tables():
        async for row in _pages(sessions, table, "owner", owner):
            yield _line(table.fullname, row)


async def erase(sessions: Sessions, owner: str, *, with_usage: bool = False) -> int:
    """Delete it in small portions, and return how many conversations there were.

    What was used by day stays unless it is said otherwise: it holds no contents, and limits go by it. A run that is
    underway ends without leaving anything.
    """
    count = await portions.delete_conversations(sessions, Conversation.scope == owner)
    for table in (*own_tables(), RUNS, *((USAGE,) if with_usage else ())):
        key, mine = list(table.primary_key.columns), table.c.owner == owner
        statement = delete(table).where(mine)
        if key:
            portion = select(*key).where(mine).limit(portions.PORTION)
            statement = statement.where(tuple_(*key).in_(portion))
        await portions.delete_rows(sessions, statement)
    return count


async def _pages(sessions: Sessions, table: Table, column: str, owner: str) -> AsyncIterator[dict[str, Any]]:
    """Yield the rows, without keeping a connection for as long as their reader takes."""
    key, after = list(table.primary_key.columns), None
    portion = LARGE.get(table.name, portions.PORTION)
    while True:
        query = select(table).where(table.c[column] == owner).order_by(*key)
        if key:  # else there is no order to go on in
            query = query.limit(portion)
        if after is not None:
            query = query.where(tuple_(*key) > tuple_(*after))
        async with sessions() as session:
            rows = (await session.execute(query)).mappings().all()
        for row in rows:
            yield dict(row)
        if len(rows) < portion or not key:
            return
        after = [rows[-1][each.name] for each in key]


def _line(kind: str, values: dict[str, Any]) -> str:
    return json.dumps(
        {"kind": kind, **to_jsonable_python(values, bytes_mode="base64", fallback=str)}, ensure_ascii=False
    )
