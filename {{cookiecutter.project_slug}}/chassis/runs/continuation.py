"""The conversation that a run goes on with: from its end, from a message of the user's, or from another run's end."""

import uuid
from http import HTTPStatus

from pydantic_ai.conversation import Conversation
from pydantic_ai.messages import ModelMessage

from chassis.conversations.store import Branch, DatabaseConversationStore
from chassis.errors import RunError
from chassis.runs.approval import not_done
from chassis.runs.records import RunRecords, no_conversation


class Continuation:
    """Finds conversations of their owners.

    Where there is no such conversation, or place in it, all raise a `RunError`.
    """

    def __init__(self, store: DatabaseConversationStore, records: RunRecords, history_messages: int) -> None:
        self._store = store
        self._records = records
        self._history_messages = history_messages

    async def find(self, conversation_id: str, owner: str, *, create: bool) -> tuple[Conversation, bool]:
        """Return the conversation, and whether it is yet to be made.

        With `create` that is no error, and its messages aren't loaded.
        """
        limit = self._history_messages
        if not create:
            found = await self._store.load(conversation_id, limit=limit, scope=owner)
            if found is None:
                raise no_conversation(conversation_id)
            return found, False
        record = await self._store.read_record(conversation_id)
        if record is None:
            return Conversation(conversation_id=conversation_id), True
        if record.scope != owner:
            raise no_conversation(conversation_id)
        found = Conversation(conversation_id=conversation_id, usage=record.usage, revision=record.revision)
        return found, False

    async def find_before(
        self, conversation_id: str, message_id: str, owner: str
    ) -> tuple[Conversation, Branch]:
        """Return the conversation as it was before a message of the user's, and where it then leaves its history."""
        limit = self._history_messages
        try:
            found = await self._store.load_before(conversation_id, message_id, limit=limit, scope=owner)
        except KeyError:
            detail = f"The conversation {conversation_id!r} has no message of the user's with the id {message_id!r}"
            raise RunError(HTTPStatus.NOT_FOUND, f"{detail}, or has left it behind.") from None
        if found is None:
            raise no_conversation(conversation_id)
        return found

    async def find_after(
        self, conversation_id: str, run_id: uuid.UUID, owner: str
    ) -> tuple[Conversation, Branch | None]:
        """Return the conversation as a run has left it, and where it leaves its history if more came since."""
        limit = self._history_messages
        try:
            found = await self._store.load_after(conversation_id, str(run_id), limit=limit, scope=owner)
        except KeyError:
            detail = f"The run {run_id} has left nothing in its conversation to go on from."
            raise RunError(
                HTTPStatus.BAD_REQUEST, detail, code="previous_response_not_found", final=True
            ) from None
        if found is None:
            raise no_conversation(conversation_id)
        return found

    async def left_open(self, conversation: Conversation, owner: str) -> list[ModelMessage]:
        """Return what the model is told of calls that nobody has decided on, if there are any."""
        requests = conversation.deferred_tool_requests
        if requests and await self._records.read_waiting(conversation.conversation_id, owner):
            return [not_done(requests)]
        return []
