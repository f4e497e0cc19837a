"""Every table class of the workspace: each module of this folder is imported, so that Alembic knows it."""

from importlib import import_module
from pkgutil import iter_modules

from db.tables.base import Base
from db.tables.conversations import Conversation, ConversationEntry
from db.tables.keys import ApiKey, ApiKeyUsage
from db.tables.runs import Run, RunEvents, RunStatus

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

__all__ = [
    "ApiKey",
    "ApiKeyUsage",
    "Base",
    "Conversation",
    "ConversationEntry",
    "Run",
    "RunEvents",
    "RunStatus",
]
