"""What a client of OpenAI's Responses API asks for.

https://platform.openai.com/docs/api-reference/responses/create
"""

from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Discriminator,
    Field,
    Tag,
    WithJsonSchema,
    model_validator,
)
from pydantic_ai.messages import UserContent

from chassis.conversations.routes import ConversationId
from chassis.protocols.openai_errors import ParamError, Refused, RefusedForm, refuse_unless
from chassis.protocols.openai_files import refuse_foreign
from chassis.protocols.openai_messages import CONTINUE, FunctionCall, Limit, Message, Part, ToolCall

SYSTEM = frozenset({"system", "developer"})
LOGPROBS = "message.output_text.logprobs"
ONLY_AT_ONCE = "a response is made while its client waits"


class Said(BaseModel):
    """A message."""

    type: Literal["message"] = "message"
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[Part]

    @property
    def message(self) -> Message:
        """The same for the history."""
        return Message(role=self.role, content=self.content)


class Called(BaseModel):
    """A call of a tool, by the model that was asked before."""

    type: Literal["function_call"]
    call_id: str
    name: str
    arguments: str


class Returned(BaseModel):
    """What the tool returned."""

    type: Literal["function_call_output"]
    call_id: str
    output: str | list[Part]


class Referred(BaseModel):
    """A message of the agent's that is kept here."""

    type: Literal["item_reference"]
    id: str


class Other(BaseModel):
    """What only another model understands, its thoughts say. It is left out of the history."""

    type: str


KINDS = frozenset({"message", "function_call", "function_call_output", "item_reference"})


def _kind(item: Any) -> str:
    # An item that is read already is asked too, when it is written again.
    kind = item.get("type") or "message" if isinstance(item, dict) else getattr(item, "type", "")
    return kind if isinstance(kind, str) and kind in KINDS else "other"


Item = Annotated[
    Annotated[Said, Tag("message")]
    | Annotated[Called, Tag("function_call")]
    | Annotated[Returned, Tag("function_call_output")]
    | Annotated[Referred, Tag("item_reference")]
    | Annotated[Other, Tag("other")],
    Discriminator(_kind),
]


def _readable(items: list[Item]) -> list[Item]:
    # In an earlier turn a picture is what another model was asked about: the conversation must go on here.
    answered = max((at for at, item in enumerate(items) if not _is_asked(item)), default=-1)
    for number, item in enumerate(items):
        if number < answered or not isinstance(item, Said):
            continue
        refuse_foreign(f"input.{number}", item.role, item.content)
    said = [item for item in items if not (isinstance(item, Said) and item.role in SYSTEM)]
    if said and not isinstance(said[-1], (Said, Referred)):
        last = f"so a user's message is to come last, not {said[-1].type!r}"
        raise ValueError(f"the agent calls its tools itself, {last}")
    return items


def _is_asked(item: Item) -> bool:
    return isinstance(item, Said) and item.role != "assistant"


# A text is what the user says.
Input = Annotated[
    Annotated[list[Item], Field(min_length=1), AfterValidator(_readable)],
    BeforeValidator(lambda value: [{"role": "user", "content": value}] if isinstance(value, str) else value),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string"},
                {"type": "array", "items": {"type": "object"}, "minItems": 1},
            ]
        }
    ),
]


class TextConfig(BaseModel):
    """The form of the answer."""

    format: RefusedForm = None


class ConversationReference(BaseModel):
    """A conversation."""

    id: ConversationId


class ResponseRequest(BaseModel):
    """What the user says, and what it goes on from. Members that aren't listed are ignored."""

    model: str = Field(description="the id of an agent")
    input: Input
    instructions: str | None = Field(None, description="adds to the agent's own, for this response")
    previous_response_id: str | None = Field(None, description="goes on from that response")
    conversation: ConversationId | ConversationReference | None = Field(
        None, description="goes on at the end of one of `/v1/conversations`"
    )
    store: bool | None = Field(
        None, description="whether it is kept as a conversation, as it is unless false"
    )
    stream: bool | None = None
    metadata: dict[str, str] | None = None
    max_output_tokens: Limit = None
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    text: TextConfig | None = None
    tools: Refused = None
    tool_choice: Annotated[None, refuse_unless("auto", "none")] = None
    prompt: Annotated[None, refuse_unless(why="there are no prompts but the agents' own")] = None
    background: Annotated[None, refuse_unless(why=ONLY_AT_ONCE)] = None
    top_logprobs: Annotated[None, refuse_unless(why="agents don't tell how sure they are")] = None
    include: list[str] | None = None

    @model_validator(mode="before")
    @classmethod
    def _without_what_is_not_to_be_used(cls, body: Any) -> Any:
        """Leave out tools that the request says not to call."""
        if isinstance(body, dict) and body.get("tool_choice") == "none":
            return {name: value for name, value in body.items() if name != "tools"}
        return body

    @property
    def conversation_id(self) -> str | None:
        """The id of the conversation."""
        if isinstance(self.conversation, ConversationReference):
            return self.conversation.id
        return self.conversation


def check(body: ResponseRequest) -> None:
    """Refuse what makes no sense together.

    Raises:
        ParamError: if there is such.
    """
    if body.previous_response_id and body.conversation:
        detail = "A response goes on from previous_response_id or in the conversation: leave one of them out."
        raise ParamError(HTTPStatus.BAD_REQUEST, detail, param="previous_response_id")
    # What else can be included never is in an answer: it is of tools that nobody has here.
    if LOGPROBS in (body.include or ()):
        detail = f"{LOGPROBS} is not supported, leave it out: agents don't tell how sure they are."
        raise ParamError(HTTPStatus.BAD_REQUEST, detail, param="include")


async def messages_of(items: Sequence[Item], look_up: Callable[[str], Awaitable[str]]) -> list[Message]:
    """Return the items as messages, of which `look_up` has the texts that are kept here."""
    messages: list[Message] = []
    for item in items:
        match item:
            case Said():
                messages.append(item.message)
            case Called():
                call = ToolCall(
                    id=item.call_id, function=FunctionCall(name=item.name, arguments=item.arguments)
                )
                # Calls in a row are of one answer, and their results come after all of them.
                if messages and messages[-1].tool_calls:
                    messages[-1].tool_calls.append(call)
                else:
                    messages.append(Message(role="assistant", tool_calls=[call]))
            case Returned():
                messages.append(Message(role="tool", tool_call_id=item.call_id, content=item.output))
            case Referred():
                messages.append(Message(role="assistant", content=await look_up(item.id)))
    return messages


def take_prompt(messages: list[Message]) -> str | list[UserContent]:
    """Take what the user says now out of the messages. What a client adds to it as the system comes before it.

    Raises:
        ParamError: if nobody says anything.
    """
    last = max(
        (at for at, message in enumerate(messages) if message.role in {"user", "assistant"}), default=-1
    )
    if last < 0:
        raise ParamError(HTTPStatus.BAD_REQUEST, "One of the messages must be the user's.", param="input")
    return messages.pop(last).shown if messages[last].role == "user" else CONTINUE


def settings_of(body: ResponseRequest) -> dict[str, Any]:
    """Return what the model is to be told beside the messages."""
    settings = {"max_tokens": body.max_output_tokens, "temperature": body.temperature, "top_p": body.top_p}
    return {name: value for name, value in settings.items() if value is not None}
