"""Texts that PostgreSQL can hold: JSONB has no place for NUL, and UTF-8 none for halves of surrogate pairs."""

import json
import re
from typing import Any

# PostgreSQL's JSONB has no place for the character NUL, which a tool may well return: it is written
# as an escape character and its number, and so is the escape character itself. Halves of surrogate
# pairs, which no UTF-8 text can hold, become the replacement character.
# https://www.postgresql.org/docs/current/datatype-json.html
ESCAPE = "\x1a"
UNSTORABLE = re.compile("[\x00\x1a\ud800-\udfff]")
ESCAPED = re.compile("\x1a([0-9a-f]{4})")
HALVES = re.compile("[\ud800-\udfff]")


def encodable(text: str) -> str:
    """Return the text without halves of surrogate pairs, which a model or a tool may well write."""
    return HALVES.sub("\ufffd", text)


def storable(value: Any) -> Any:
    """Return the JSON value with all its texts, keys included, such that JSONB can hold them."""
    return _map_texts(value, lambda text: UNSTORABLE.sub(_escape, text))


def restored(value: Any) -> Any:
    """Undo `storable`."""
    return _map_texts(value, lambda text: ESCAPED.sub(lambda match: chr(int(match[1], 16)), text))


def _escape(match: re.Match[str]) -> str:
    return f"{ESCAPE}{ord(match[0]):04x}" if match[0] < "\ud800" else "\ufffd"


def _map_texts(value: Any, change: Any) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [_map_texts(item, change) for item in value]
    if isinstance(value, dict):
        return {change(key): _map_texts(item, change) for key, item in value.items()}
    return value


def restore_text(document: str) -> str:
    """Undo `storable` in a JSON document; nearly none needs it."""
    return json.dumps(restored(json.loads(document))) if "\\u001a" in document else document
