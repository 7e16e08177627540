"""Sending one request to a target: TLS verified, no redirects, no proxies, and only to addresses that may be called.

Owns limits of time and size. Refuses to decide what an answer means, or whether to try again.
"""

import asyncio
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from relayfile.settings.targets import Network
from relayfile.store.outward.addresses import may_call
from relayfile.store.outward.answers import TargetAnswer, TargetFault
from relayfile.store.outward.requests import TargetRequest

CONNECTIONS_MAX: Final = 256
_READ_BYTES: Final = 1 << 16


class AddressRefused(OSError):
    """A target's name leads to an address that may not be called."""


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """Of one request."""

    timeout_s: float
    answer_bytes_max: int
    allowed: Sequence[Network] = ()
    """Networks that may be called although they are not public."""


class GuardedResolver(AbstractResolver):
    """Resolves names, and keeps only addresses that may be called: checked in the lookup that the connection uses, so
    that a second lookup cannot give another one."""

    def __init__(self, allowed: Sequence[Network]) -> None:
        self._resolver = aiohttp.ThreadedResolver()
        self._allowed = allowed

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._resolver.resolve(host, port, family)
        kept = [each for each in found if may_call(each["host"], self._allowed)]
        if found and not kept:
            raise AddressRefused(f"{host} has no address that may be called")
        return kept

    async def close(self) -> None:
        await self._resolver.close()


class HttpSender:
    """Sends requests. Make it inside the running loop; `close` it."""

    def __init__(self, limits: HttpLimits) -> None:
        self._limits = limits
        connector = aiohttp.TCPConnector(
            resolver=GuardedResolver(limits.allowed), limit=CONNECTIONS_MAX, use_dns_cache=False
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=limits.timeout_s),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"user-agent": "relayfile"},
            auto_decompress=True,
        )

    async def send(self, request: TargetRequest) -> TargetAnswer | TargetFault:
        """The answer, or why there is none. Never raises for what the network or the target does."""
        # A host that is an address already is never resolved.
        host = urlsplit(request.url).hostname or ""
        if _is_address(host) and not may_call(host, self._limits.allowed):
            return _refused(host)
        try:
            async with self._session.request(
                request.method,
                request.url,
                headers=dict(request.headers),
                data=request.body or None,
                allow_redirects=False,
            ) as response:
                body = bytearray()
                async for piece in response.content.iter_chunked(_READ_BYTES):
                    body += piece
                    if len(body) > self._limits.answer_bytes_max:
                        return TargetFault(
                            "PROVIDER_ANSWER_TOO_LARGE",
                            f"the answer has more than {self._limits.answer_bytes_max} bytes",
                            retryable=False,
                            status=response.status,
                        )
                return TargetAnswer(
                    response.status,
                    bytes(body),
                    response.headers.get("content-type", ""),
                    response.headers.get("retry-after", ""),
                )
        except AddressRefused:
            return _refused(host)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            if isinstance(error.__cause__, AddressRefused) or isinstance(error.__context__, AddressRefused):
                return _refused(host)
            why = "no answer in time" if isinstance(error, asyncio.TimeoutError) else str(error) or type(error).__name__
            return TargetFault("PROVIDER_UNREACHABLE", f"{host}: {why}"[:500], retryable=True, of_target=True)

    async def close(self) -> None:
        """Close every connection."""
        await self._session.close()


def _is_address(host: str) -> bool:
    return ":" in host or host.replace(".", "").isdigit()


def _refused(host: str) -> TargetFault:
    return TargetFault(
        "TARGET_ADDRESS_REFUSED",
        f"{host} is, or leads to, an address that is not public; RELAYFILE_OUTWARD_NETWORKS allows networks",
        retryable=True,
    )
