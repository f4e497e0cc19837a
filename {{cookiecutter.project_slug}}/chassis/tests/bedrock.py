"""A stand-in for AWS Bedrock's runtime, and for what gives a container its role, over HTTP.

`fail NAME` is refused with that exception, `time` calls the tool current_time, and all else is said back.
https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html
"""

import json
import re
from collections.abc import AsyncIterator
from struct import pack
from typing import Any
from zlib import crc32

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

USAGE = {"inputTokens": 3, "outputTokens": 5, "totalTokens": 8}
STATUS = {"ThrottlingException": 429, "AccessDeniedException": 403, "ServiceUnavailableException": 503}
seen: list[dict[str, str]] = []


def frame(name: str, payload: dict[str, Any]) -> bytes:
    """One event in AWS's encoding: https://smithy.io/2.0/aws/amazon-eventstream.html"""
    headers = b"".join(
        pack("!B", len(key)) + key.encode() + b"\7" + pack("!H", len(value)) + value.encode()
        for key, value in (
            (":message-type", "event"),
            (":event-type", name),
            (":content-type", "application/json"),
        )
    )
    body = json.dumps(payload).encode()
    prelude = pack("!II", 16 + len(headers) + len(body), len(headers))
    message = prelude + pack("!I", crc32(prelude)) + headers + body
    return message + pack("!I", crc32(message))


def answer_of(body: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Why the model stops, and the content that it ends with."""
    said = [part for message in body["messages"] if message["role"] == "user" for part in message["content"]]
    text = next(part["text"] for part in reversed(said) if "text" in part)
    if "toolResult" in said[-1]:
        return "end_turn", {"text": f"The tool said: {said[-1]['toolResult']['content'][0]}"}
    if text == "time":
        return "tool_use", {"toolUse": {"toolUseId": "t1", "name": "current_time", "input": {}}}
    return "end_turn", {"text": f"Heard: {text}"}


async def events(reason: str, content: dict[str, Any]) -> AsyncIterator[bytes]:
    yield frame("messageStart", {"role": "assistant"})
    if "text" in content:
        deltas = [{"text": word} for word in re.findall(r"\S+\s*", content["text"])]
    else:
        use = content["toolUse"]
        start = {"toolUse": {"toolUseId": use["toolUseId"], "name": use["name"]}}
        yield frame("contentBlockStart", {"contentBlockIndex": 0, "start": start})
        deltas = [{"toolUse": {"input": json.dumps(use["input"])}}]
    for delta in deltas:
        yield frame("contentBlockDelta", {"contentBlockIndex": 0, "delta": delta})
    yield frame("contentBlockStop", {"contentBlockIndex": 0})
    yield frame("messageStop", {"stopReason": reason})
    yield frame("metadata", {"usage": USAGE, "metrics": {"latencyMs": 1}})


async def converse(request: Request) -> Response:
    body = await request.json()
    seen.append({"path": request.url.path, "authorization": request.headers.get("authorization", "")})
    text = body["messages"][-1]["content"][-1].get("text", "")
    if text.startswith("fail "):
        name = text.removeprefix("fail ")
        headers = {"x-amzn-ErrorType": name}
        return JSONResponse({"message": "secret of the account"}, STATUS[name], headers)
    reason, content = answer_of(body)
    if request.url.path.endswith("-stream"):
        return StreamingResponse(events(reason, content), media_type="application/vnd.amazon.eventstream")
    message = {"role": "assistant", "content": [content]}
    return JSONResponse(
        {
            "output": {"message": message},
            "stopReason": reason,
            "usage": USAGE,
            "metrics": {"latencyMs": 1},
        }
    )


def role(request: Request) -> Response:
    """What a container is given in place of a key."""
    return JSONResponse(
        {
            "AccessKeyId": "ROLE",
            "SecretAccessKey": "s",
            "Token": "t",
            "Expiration": "2100-01-01T00:00:00Z",
        }
    )


app = Starlette(
    routes=[
        Route("/model/{model}/converse", converse, methods=["POST"]),
        Route("/model/{model}/converse-stream", converse, methods=["POST"]),
        Route("/role", role),
        Route("/seen", lambda _: JSONResponse(seen)),
    ]
)
