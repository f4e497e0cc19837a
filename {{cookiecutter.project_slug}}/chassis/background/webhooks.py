"""Telling an address that a run has ended, signed as in https://github.com/standard-webhooks/standard-webhooks.

The address comes from whoever asks for a run, so it must not lead to what only this service can reach. A name is
resolved once, and the connection goes to what was checked; redirects aren't followed, and no proxy is asked.
"""

import asyncio
import base64
import hashlib
import hmac
import ipaddress
import json
import socket
import time
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any
from urllib.parse import SplitResult, urlsplit

import httpcore2
from httpcore2 import AsyncNetworkBackend, AsyncNetworkStream

from chassis.background.settings import SECRET_PREFIX, BackgroundSettings
from chassis.errors import RunError

TIMEOUT_SECONDS = 10
LONGEST = 2000
NO_HOST = (OSError, UnicodeError)
NO_ANSWER = (httpcore2.ConnectError, httpcore2.ConnectTimeout)
NAT64 = ipaddress.ip_network("64:ff9b::/96")


class Refused(Exception):  # noqa: N818 -- it is for the caller to mend
    """The address can't be told; the message says why."""


class Webhooks:
    """Checks addresses, and tells them."""

    def __init__(self, settings: BackgroundSettings, *, plain: bool) -> None:
        """Take the settings; with `plain`, as in development, an address may do without TLS."""
        self._secrets = [
            base64.b64decode(secret.removeprefix(SECRET_PREFIX)) for secret in settings.webhook_secrets
        ]
        self._excepted = frozenset(host.lower() for host in settings.webhook_hosts)
        self._plain = plain

    async def check(self, address: str) -> None:
        """Check an address that a request names.

        Raises:
            RunError: 422, saying what is wrong with it.
        """
        if not self._secrets:
            raise _unprocessable(
                "This service sends no webhooks: AGENT_WEBHOOK_SECRETS isn't set. Ask for the run instead."
            )
        try:
            url = self._read(address)
            await self._resolve(str(url.hostname), _port(url))
        except Refused as reason:
            raise _unprocessable(f"The webhook's address can't be used: {reason}") from None

    async def send(self, address: str, message_id: str, payload: dict[str, Any]) -> int:
        """Tell the address, and return the status that it answers with.

        Raises:
            Refused: if it can't be used any more.
            httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.TimeoutException: if it doesn't answer.
        """
        url = self._read(address)
        body = json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode()
        headers = {
            "Host": url.netloc,
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            "User-Agent": "agent-webhooks",
            **self.sign(message_id, int(time.time()), body),
        }
        async with (
            asyncio.timeout(2 * TIMEOUT_SECONDS),
            httpcore2.AsyncConnectionPool(network_backend=_Checked(self)) as pool,
            pool.stream(
                "POST",
                address,
                headers=list(headers.items()),
                content=body,
                extensions={"timeout": dict.fromkeys(("connect", "read", "write", "pool"), TIMEOUT_SECONDS)},
            ) as response,
        ):
            return int(response.status)

    def sign(self, message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
        """Return the headers that tell who sent a message, and when (seconds since 1970)."""
        signed = f"{message_id}.{timestamp}.".encode() + body
        digests = (hmac.new(secret, signed, hashlib.sha256).digest() for secret in self._secrets)
        return {
            "webhook-id": message_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": " ".join(f"v1,{base64.b64encode(digest).decode()}" for digest in digests),
        }

    def _read(self, address: str) -> SplitResult:
        try:
            url = urlsplit(address)
            port = _port(url)
        except ValueError:
            raise Refused("it isn't one.") from None
        if len(address) > LONGEST or not address.isascii() or not address.isprintable() or " " in address:
            raise Refused("it isn't one.")
        if url.scheme not in {"http", "https"} or not url.hostname or port == 0:
            raise Refused("write https://HOST/PATH.")
        if url.username is not None or url.password is not None:
            raise Refused("it holds a password; check the signature instead.")
        if url.scheme == "http" and not (self._plain or self._is_excepted(url.hostname, port)):
            raise Refused("it must begin with https://.")
        return url

    def _is_excepted(self, host: str, port: int) -> bool:
        name = f"[{host}]" if ":" in host else host
        return not self._excepted.isdisjoint({host, name, f"{name}:{port}"})

    async def _resolve(self, host: str, port: int) -> list[str]:
        """Return what a host's name stands for, if nobody but this service's surroundings could mind."""
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except NO_HOST:
            raise Refused(f"there is no host {host!r}.") from None
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        # All of them: which one is connected to is a matter of chance.
        if not self._is_excepted(host, port) and not all(map(is_public, addresses)):
            raise Refused("it is private. Where it is meant, the operator names it in AGENT_WEBHOOK_HOSTS.")
        return addresses


class _Checked(AsyncNetworkBackend):
    """Connects to nothing but what was checked."""

    def __init__(self, webhooks: Webhooks) -> None:
        self._webhooks = webhooks
        self._inner = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 -- the interface has it
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> AsyncNetworkStream:
        [*others, last] = await self._webhooks._resolve(host, port)
        for address in others:
            try:
                return await self._inner.connect_tcp(address, port, timeout, local_address, socket_options)
            except NO_ANSWER:
                continue
        return await self._inner.connect_tcp(last, port, timeout, local_address, socket_options)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def is_public(address: str) -> bool:
    """Tell whether an IP address belongs to the public Internet, however it is wrapped."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        wrapped = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if wrapped is None and ip in NAT64:
            wrapped = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if wrapped is not None:
            return is_public(str(wrapped))
    return ip.is_global and not (ip.is_multicast or ip.is_reserved)


def _port(url: SplitResult) -> int:
    return url.port if url.port is not None else {"http": 80}.get(url.scheme, 443)


def _unprocessable(detail: str) -> RunError:
    return RunError(HTTPStatus.UNPROCESSABLE_ENTITY, detail, final=True)
