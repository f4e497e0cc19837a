"""The tables of the chassis, which share one history with yours."""

from chassis.tables import (
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
