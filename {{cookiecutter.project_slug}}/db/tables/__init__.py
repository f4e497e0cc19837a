"""Every table class of the workspace. A class that isn't imported here doesn't exist for Alembic."""

from db.tables.base import Base
from db.tables.conversations import Conversation, ConversationEntry
from db.tables.runs import Run, RunStatus

__all__ = ["Base", "Conversation", "ConversationEntry", "Run", "RunStatus"]
