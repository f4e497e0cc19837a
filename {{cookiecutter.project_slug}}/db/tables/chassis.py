"""The tables of the chassis, which share one history with yours."""

from chassis.tables import (
    ApiFile,
    ApiKey,
    ApiKeyUsage,
    ApiUser,
    Conversation,
    ConversationEntry,
    Run,
    RunEvents,
    RunFeedback,
    RunStatus,
)

__all__ = [
    "ApiFile",
    "ApiKey",
    "ApiKeyUsage",
    "ApiUser",
    "Conversation",
    "ConversationEntry",
    "Run",
    "RunEvents",
    "RunFeedback",
    "RunStatus",
]
