"""The files in messages of OpenAI's API: read, checked, and shown to the agent."""

import base64
from collections.abc import Sequence
from http import HTTPStatus
from urllib.parse import unquote_to_bytes
from uuid import UUID

from pydantic import ValidationError
from pydantic_ai.messages import UserContent
from starlette.concurrency import run_in_threadpool

from chassis.errors import RunError
from chassis.files.store import FileStore
from chassis.protocols.openai_errors import ParamError
from chassis.protocols.openai_messages import FILES, Message, Part


async def show_files(
    messages: Sequence[Message], files: FileStore, owner: str, param: str
) -> list[UserContent]:
    """Read the files in what the user says, the newest first, and return them.

    In an earlier turn a file that isn't taken is what another model was asked about: it is left out, and named.

    Raises:
        ParamError: if one of the newest turn isn't taken, or they are too many.
    """
    answered = max((at for at, message in enumerate(messages) if message.role == "assistant"), default=-1)
    shown: list[UserContent] = []
    for number in reversed(range(len(messages))):
        content = messages[number].content
        for part in content if isinstance(content, list) and messages[number].role == "user" else ():
            if part.type not in FILES:
                continue
            try:
                file = await _read(part, files, owner)
                files.check_all([*shown, file])
            except RunError as error:
                if number < answered:
                    continue
                raise ParamError(error.status, error.detail, param=param) from None
            part.show(file)
            shown.append(file)
    return shown


def refuse_foreign(at: str, role: str, content: str | list[Part] | None) -> None:
    """Refuse parts of a message that no agent is shown.

    Raises:
        ValueError: saying which.
    """
    for part in content if isinstance(content, list) else ():
        if part.is_foreign and (part.type not in FILES or role != "user"):
            raise ValueError(
                f"{at}: only texts and the user's files are taken, so leave out the part {part.type!r}"
            )


async def _read(part: Part, files: FileStore, owner: str) -> UserContent:
    try:
        sent = part.sent
    except ValidationError:
        raise _unreadable(part.type) from None
    if sent.file_id:
        try:
            file_id = UUID(sent.file_id)
        except ValueError:
            detail = f"There is no file {sent.file_id!r}: upload it to /v1/attachments, or send it with the message."
            raise RunError(HTTPStatus.NOT_FOUND, detail) from None
        return (await files.refer([file_id], owner))[0]
    data = sent.image_url or sent.file_data or sent.file_url
    if not data:
        raise _unreadable(part.type)
    if data.partition(":")[0].lower() in {"http", "https"}:
        return files.check_url(data, is_image=bool(sent.image_url))
    said, text = "", data
    if data.startswith("data:"):
        head, _, text = data.removeprefix("data:").partition(",")
        said = head.removesuffix(";base64")
        if said == head:
            raise _unreadable(part.type)
    try:
        content = await run_in_threadpool(lambda: base64.b64decode(unquote_to_bytes(text), validate=True))
    except ValueError:
        raise _unreadable(part.type) from None
    return await run_in_threadpool(files.check, content, said, sent.filename)


def _unreadable(kind: str) -> RunError:
    detail = f"The part {kind!r} can't be read: send the file as a data: URL in base64, or the id of one in /v1/attachments."
    return RunError(HTTPStatus.UNPROCESSABLE_ENTITY, detail)
