"""The tables of the chassis, which share one history with yours."""

from chassis.tables import (
    ApiKey,
    ApiKeyUsage,
    Conversation,
    ConversationEntry,
    Run,
    RunEvents,
    RunStatus,
)

__all__ = [
    "ApiKey",
    "ApiKeyUsage",
    "Conversation",
    "ConversationEntry",
    "Run",
    "RunEvents",
    "RunStatus",
]
