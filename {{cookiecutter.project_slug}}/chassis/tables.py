"""Every table class of the chassis: those of each feature that has any."""

from importlib import import_module
from pathlib import Path

from chassis.conversations.tables import Conversation, ConversationEntry
from chassis.database.base import Base
from chassis.files.tables import ApiFile
from chassis.keys.tables import ApiKey, ApiKeyUsage
from chassis.runs.tables import Run, RunEvents, RunFeedback, RunStatus
from chassis.users.tables import ApiUser

for _path in sorted(Path(__file__).parent.glob("*/tables.py")):
    import_module(f"chassis.{_path.parent.name}.tables")

__all__ = [
    "ApiFile",
    "ApiKey",
    "ApiKeyUsage",
    "ApiUser",
    "Base",
    "Conversation",
    "ConversationEntry",
    "Run",
    "RunEvents",
    "RunFeedback",
    "RunStatus",
]
