"""Pages of a list that is sorted by a time, the newest first: a cursor tells where the next one starts."""

import base64
from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import HTTPException, Query
from sqlalchemy import ColumnElement, tuple_

Limit = Annotated[int, Query(ge=1, le=200, description="how many at most")]
Cursor = Annotated[str | None, Query(max_length=400, description="`next_cursor` of the page before")]


def encode_cursor(time: datetime, id: str) -> str:  # noqa: A002 -- what it is called in the tables
    """Return the cursor for what comes after the row with this time and id."""
    return base64.urlsafe_b64encode(f"{time.isoformat()} {id}".encode()).decode().rstrip("=")


def after(cursor: str, time: Any, id: Any) -> ColumnElement[bool]:  # noqa: A002
    """Return the condition for rows after the cursor, of a list sorted by these columns, both descending.

    Raises:
        HTTPException: 422 for a cursor that none of our answers had.
    """
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
        moment, _, last = text.partition(" ")
        values = (datetime.fromisoformat(moment), last)
        if values[0].tzinfo is None or "\0" in last:
            raise ValueError
    except ValueError:
        raise HTTPException(
            HTTPStatus.UNPROCESSABLE_ENTITY, "cursor: send the next_cursor of the page before, unchanged."
        ) from None
    return tuple_(time, id) < values
