"""Every table class of the service: the chassis' own, and those of each module of this folder.

Alembic knows the tables whose classes are imported, and that happens here.
"""

from importlib import import_module
from pkgutil import iter_modules

from chassis.tables import (
    ApiKey,
    ApiKeyUsage,
    Base,
    Conversation,
    ConversationEntry,
    Run,
    RunEvents,
    RunStatus,
)

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
