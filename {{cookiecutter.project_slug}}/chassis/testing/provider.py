"""A model's provider that speaks OpenAI's protocol over HTTP and does what the user's last words say:

    sleep S             answers after S seconds
    slow N S WORD       streams the N tokens WORD/1, WORD/2, ... with S seconds before each
    hold N WORD         streams the same, and waits after the first token until `POST /release`
    cut N               closes the connection after N tokens
    say TEXT            answers with this very text
    short TEXT          answers with this, for which there were too few tokens
    type S TEXT         streams the same with S seconds before each word
    call TOOL JSON      calls the tool, an output tool too; then tells what it returned
    loop TOOL JSON      calls the tool again and again
    break TOOL JSON     calls the tool, and is out of order when that has returned
    twice TOOL JSON     calls the tool two times at once
    stall TOOL JSON     calls the tool, and takes 60 seconds when that has returned
    fail WHAT           refuses, see ERRORS
    flaky WORDS         is out of order for the first request with these words
    half                answers half of a surrogate pair
    <...> with a rubric judges, and lets pass what has no rubric with the word "never"

All else is answered with "Heard N: WORDS", where N is how often the user spoke. A model with the name `fail-WHAT`
refuses all of it. `GET /stats` counts, and
`GET /last` shows the last request.
By hand: python -m chassis.testing.provider --port 9000
"""

import argparse
import base64
import json
import math
import re
import struct
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import anyio
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

# What no caller of the service may ever see.
SECRET = "sk-live-0123456789"
# The client tries again by itself unless it is told not to, or to wait for longer than it likes.
GIVE_UP = {"x-should-retry": "false"}
LATER = {"Retry-After": "300"}
ERRORS: dict[str, tuple[int, str, dict[str, str]]] = {
    "request": (400, "bad_request", {}),
    "length": (400, "context_length_exceeded", {}),
    "key": (401, "invalid_api_key", {}),
    "model": (404, "model_not_found", {}),
    "teapot": (418, "teapot", {}),
    "rate": (429, "rate_limit_exceeded", LATER),
    "quota": (429, "insufficient_quota", GIVE_UP),
    "server": (500, "server_error", GIVE_UP),
    "down": (503, "service_unavailable", GIVE_UP),
}

stats = Counter(open=0, finished=0, cancelled=0)
flaked: set[str] = set()
held: set[anyio.Event] = set()
last: dict[str, Any] = {}


@dataclass
class Reply:
    """What the model says, in tokens, or the tool that it calls with tokens of JSON."""

    tokens: list[str]
    tool: str | None = None
    sleep: float = 0
    pause: float = 0
    hold: bool = False
    cut: bool = False
    short: bool = False
    times: int = 1
    id: str = field(default_factory=lambda: uuid4().hex)

    def deltas(self) -> Iterator[dict[str, Any]]:
        yield {"role": "assistant"} | ({"tool_calls": self.calls("")} if self.tool else {"content": ""})
        for token in self.tokens:
            arguments = [{"index": n, "function": {"arguments": token}} for n in range(self.times)]
            yield {"tool_calls": arguments} if self.tool else {"content": token}

    def calls(self, arguments: str) -> list[dict[str, Any]]:
        function = {"name": self.tool, "arguments": arguments}
        return [
            {
                "index": n,
                "id": f"call_{self.id}" + f"_{n}" * bool(n),
                "type": "function",
                "function": function,
            }
            for n in range(self.times)
        ]

    def message(self) -> dict[str, Any]:
        text = "".join(self.tokens)
        said = {"content": None, "tool_calls": self.calls(text)} if self.tool else {"content": text}
        return {"role": "assistant", **said}


def text_of(message: dict[str, Any]) -> str:
    content = message.get("content") or ""
    return content if isinstance(content, str) else " ".join(part.get("text", "") for part in content)


def tokens_of(text: str) -> list[str]:
    return re.findall(r"\s*\S+", text)


def obey(messages: list[dict[str, Any]]) -> Reply:
    """Do what the last words say."""
    said = [text_of(message) for message in messages if message["role"] == "user"]
    verb, _, rest = said[-1].partition(" ")
    returned = messages[-1]["role"] == "tool"
    match verb:
        case "call" | "break" | "stall" | "twice" | "loop" if verb == "loop" or not returned:
            tool, _, arguments = rest.partition(" ")
            tokens = re.findall(r".{1,8}", arguments or "{}", re.DOTALL)
            return Reply(tokens, tool, times=2 if verb == "twice" else 1)
        case "call" | "twice":
            return Reply(tokens_of(f"The tool said: {text_of(messages[-1])}"))
        case "stall":
            return Reply(["late"], sleep=60)
        case "slow":
            count, pause, word = rest.split(maxsplit=2)
            return Reply([f"{word}/{n} " for n in range(1, int(count) + 1)], pause=float(pause))
        case "hold":
            count, word = rest.split(maxsplit=1)
            return Reply([f"{word}/{n} " for n in range(1, int(count) + 1)], hold=True)
        case "cut":
            return Reply([f"{n} " for n in range(1, int(rest) + 1)], cut=True)
        case "say":
            return Reply(tokens_of(rest))
        case "short":
            return Reply(tokens_of(rest), short=True)
        case "type":
            pause, text = rest.split(" ", 1)
            return Reply(tokens_of(text), pause=float(pause))
        case "half":
            return Reply(["x\ud83dy"])
    if "<Rubric>" in said[-1]:
        passes = "never" not in said[-1].rpartition("<Rubric>")[2]
        verdict = {"reason": "I said so.", "pass": passes, "score": float(passes)}
        return Reply([json.dumps(verdict)], "final_result")
    sleep = float(rest) if verb == "sleep" else 0
    return Reply(tokens_of(f"Heard {len(said)}: {said[-1]}"), sleep=sleep)


def refusal(words: str) -> Response | None:
    """The error that the words ask for, if they do."""
    verb, _, what = words.partition(" ")
    if verb == "flaky" and words not in flaked:
        flaked.add(words)
        return error(503, "service_unavailable", {"Retry-After": "0.1"})
    if verb != "fail":
        return None
    if what == "nonsense":
        return Response('{"choices": [' + SECRET, media_type="application/json")
    return error(*ERRORS[what])


def error(status: int, code: str, headers: dict[str, str]) -> Response:
    body = {"error": {"message": f"No: {SECRET}", "type": code, "param": None, "code": code}}
    return JSONResponse(body, status, headers)


class Completion(Response):
    """The answer, at once or as events. The model stops as soon as the caller hangs up."""

    def __init__(self, request: dict[str, Any], reply: Reply) -> None:
        self.request = request
        self.reply = reply

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        outcome = "cancelled"
        stats["open"] += 1
        try:
            async with anyio.create_task_group() as group:

                async def watch() -> None:
                    while (await receive())["type"] != "http.disconnect":
                        pass
                    group.cancel_scope.cancel()

                group.start_soon(watch)
                await anyio.sleep(self.reply.sleep)
                await (self.stream(send) if self.request.get("stream") else self.whole(send))
                outcome = "finished"
                group.cancel_scope.cancel()
        finally:
            stats["open"] -= 1
            stats[outcome] += 1

    def document(self, kind: str, **members: Any) -> bytes:
        common = {"id": self.reply.id, "object": kind, "created": 1, "model": self.request["model"]}
        return json.dumps(common | members).encode()

    def usage(self) -> dict[str, int]:
        asked = sum(len(tokens_of(text_of(message))) for message in self.request["messages"])
        told = len(self.reply.tokens)
        return {"prompt_tokens": asked, "completion_tokens": told, "total_tokens": asked + told}

    def choice(self, finished: bool, **members: Any) -> list[dict[str, Any]]:
        end = "tool_calls" if self.reply.tool else "length" if self.reply.short else "stop"
        reason = end if finished else None
        return [{"index": 0, "finish_reason": reason, **members}]

    async def start(self, send: Send, media_type: str) -> None:
        headers = [(b"content-type", media_type.encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})

    async def whole(self, send: Send) -> None:
        await anyio.sleep(self.reply.pause * len(self.reply.tokens))
        choices = self.choice(True, message=self.reply.message())
        body = self.document("chat.completion", choices=choices, usage=self.usage())
        await self.start(send, "application/json")
        if self.reply.cut:
            body = body[: len(body) // 2]
        await send({"type": "http.response.body", "body": body, "more_body": self.reply.cut})

    async def stream(self, send: Send) -> None:
        async def chunk(**members: Any) -> None:
            data = self.document("chat.completion.chunk", **members)
            await send({"type": "http.response.body", "body": b"data: %s\n\n" % data, "more_body": True})

        await self.start(send, "text/event-stream")
        for number, delta in enumerate(self.reply.deltas()):
            if number and self.reply.pause:
                await anyio.sleep(self.reply.pause)
            if number == 2 and self.reply.hold:
                held.add(event := anyio.Event())
                await event.wait()
            await chunk(choices=self.choice(False, delta=delta))
        if self.reply.cut:  # The server closes the connection of an answer that has no end.
            return
        await chunk(choices=self.choice(True, delta={}))
        if (self.request.get("stream_options") or {}).get("include_usage"):
            await chunk(choices=[], usage=self.usage())
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})


async def completions(request: Request) -> Response:
    body = await request.json()
    last.clear()
    last.update(body)
    said = [text_of(message) for message in body["messages"] if message["role"] == "user"]
    named = body["model"].replace("fail-", "fail ", 1)
    if said[-1].startswith("break ") and body["messages"][-1]["role"] == "tool":
        return refusal("fail server") or Response()
    return refusal(named) or refusal(said[-1]) or Completion(body, obey(body["messages"]))


def embedding(text: str, dimensions: int) -> list[float]:
    """A vector that says which words are in the text, so that texts with the same words are near."""
    vector = [0.0] * dimensions
    for word in re.findall(r"\w+", text.lower()) or [""]:
        vector[zlib.crc32(word.encode()) % dimensions] += 1
    length = math.hypot(*vector)
    return [value / length for value in vector]


async def embeddings(request: Request) -> Response:
    body = await request.json()
    texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
    if refused := refusal(texts[0]):
        return refused
    data = []
    for index, text in enumerate(texts):
        vector: list[float] | str = embedding(text, body.get("dimensions", 1536))
        if body.get("encoding_format") == "base64":
            vector = base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
        data.append({"object": "embedding", "index": index, "embedding": vector})
    tokens = sum(len(tokens_of(text)) for text in texts)
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return JSONResponse({"object": "list", "model": body["model"], "data": data, "usage": usage})


async def read_stats(request: Request) -> Response:
    return JSONResponse(stats)


async def read_last(request: Request) -> Response:
    return JSONResponse(last)


async def release(request: Request) -> Response:
    while held:
        held.pop().set()
    return Response()


app = Starlette(
    routes=[
        Route("/v1/chat/completions", completions, methods=["POST"]),
        Route("/v1/embeddings", embeddings, methods=["POST"]),
        Route("/stats", read_stats),
        Route("/last", read_last),
        Route("/release", release, methods=["POST"]),
    ]
)

if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m chassis.testing.provider", description="The fake provider."
    )
    parser.add_argument("--port", type=int, default=9000)
    parser.add_argument("--workers", type=int, default=1, help="each counts by itself")
    options = parser.parse_args()
    uvicorn.run(
        "chassis.testing.provider:app",
        port=options.port,
        workers=options.workers,
        log_level="warning",
        timeout_graceful_shutdown=1,
    )
