"""A JWKS from an HTTPS URL: one request, no redirects, bounded in time and size, off the loop.

Owns what is asked and what is refused. Plain HTTP is taken only from this machine.
"""

import asyncio
import http.client
import ipaddress
import ssl
from dataclasses import dataclass
from functools import partial
from urllib.parse import urlsplit

from relayfile.errors import StartRefused, Unavailable

KEY_SET_BYTES_MAX = 1 << 20
TIMEOUT_S = 5.0
"""Of each step: connecting, the head, each piece of the body; all together may take twice as long."""


@dataclass(frozen=True, slots=True)
class KeyUrl:
    """Where keys are published."""

    is_https: bool
    host: str
    port: int | None
    target: str

    @classmethod
    def parse(cls, url: str) -> "KeyUrl":
        """`StartRefused` unless it is an https URL, or an http URL of this machine."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise StartRefused(why=f"RELAYFILE_JWKS_URL is no URL ({error})") from None
        host = parts.hostname or ""
        if not host or parts.username is not None or not (parts.scheme == "https" or _is_here(parts.scheme, host)):
            raise StartRefused(why="RELAYFILE_JWKS_URL must be an https URL without a user name; http only on loopback")
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return cls(parts.scheme == "https", host, port, target)

    async def fetch(self) -> bytes:
        """The body of the answer. `Unavailable`."""
        try:
            async with asyncio.timeout(2 * TIMEOUT_S):
                return await asyncio.to_thread(partial(self._fetch))
        except (OSError, TimeoutError, http.client.HTTPException, ValueError) as error:
            raise Unavailable(what=f"key set at {self.host} ({type(error).__name__})") from error

    def _fetch(self) -> bytes:
        connection = (
            http.client.HTTPSConnection(self.host, self.port, timeout=TIMEOUT_S, context=ssl.create_default_context())
            if self.is_https
            else http.client.HTTPConnection(self.host, self.port, timeout=TIMEOUT_S)
        )
        try:
            connection.request("GET", self.target, headers={"accept": "application/json"})
            answer = connection.getresponse()
            if answer.status != http.client.OK:
                raise ValueError(f"status {answer.status}")
            body = answer.read(KEY_SET_BYTES_MAX + 1)
            if len(body) > KEY_SET_BYTES_MAX:
                raise ValueError("too large")
            return body
        finally:
            connection.close()


def _is_here(scheme: str, host: str) -> bool:
    if scheme != "http":
        return False
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
