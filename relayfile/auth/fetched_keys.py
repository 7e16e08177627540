"""Public keys of somebody who issues tokens, fetched from a URL again and again.

Owns when they are fetched and how long they count: every `refresh_s`; sooner when a token names a key that is not among
them, at most every `LOOK_AGAIN_S`; and after a failure every `RETRY_S`. Keys that could not be refreshed count for
`STALE_GRACE_S` longer, then nothing can be verified with them: a key that its issuer took back must not live on because
the issuer cannot be reached. Refuses to know tokens, and how bytes come from a URL.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from relayfile.auth.keys import keys_in
from relayfile.clock import Clock
from relayfile.errors import StartRefused, Unavailable
from relayfile.telemetry import get_logger

STALE_GRACE_S = 60.0
LOOK_AGAIN_S = 10.0
RETRY_S = 5.0
LOOK_AGAIN_WAIT_S = 2.0
"""How long a call waits for keys that may have the one it is signed with."""

_log = get_logger(__name__)

Fetch = Callable[[], Awaitable[bytes]]
"""The JWKS as bytes. `Unavailable` when it did not come."""


class FetchedKeys:
    """The keys as they came last. `run` must be running for any to come."""

    def __init__(self, fetch: Fetch, clock: Clock, refresh_s: float) -> None:
        self._fetch = fetch
        self._clock = clock
        self._refresh_s = refresh_s
        self._keys: dict[str, Any] = {}
        self._fetched_at = float("-inf")
        self._tried_at = float("-inf")
        self._wanted = asyncio.Event()
        self._tried = asyncio.Event()
        """Not set while an attempt is under way, or asked for."""
        self.version = 0
        """Grows when the keys are others than before."""

    def find(self, kid: str) -> Any:
        """The key of this name, or None. `Unavailable` when what is known is too old to say."""
        if self._clock.monotonic() - self._fetched_at > self._refresh_s + STALE_GRACE_S:
            raise Unavailable(what="key set that tokens are checked with", retry_after_s=RETRY_S)
        return self._keys.get(kid)

    async def look_again(self) -> None:
        """Have the keys fetched now, unless that was done a moment ago, and wait a little for them."""
        if self._tried.is_set():
            if self._clock.monotonic() - self._tried_at < LOOK_AGAIN_S:
                return
            self._tried.clear()
            self._wanted.set()
        try:
            async with asyncio.timeout(LOOK_AGAIN_WAIT_S):
                await self._tried.wait()
        except TimeoutError:
            return

    async def run(self) -> None:
        """Keep the keys fresh, until cancelled."""
        while True:
            came = await self.refresh()
            try:
                async with asyncio.timeout(self._refresh_s if came else min(RETRY_S, self._refresh_s)):
                    await self._wanted.wait()
            except TimeoutError:
                continue

    async def refresh(self) -> bool:
        """Fetch once; False when that failed, and what is known stays."""
        self._tried.clear()
        self._tried_at = self._clock.monotonic()
        self._wanted.clear()
        try:
            found: dict[str, Any] = {
                str(key.kid): key for key in keys_in(await self._fetch(), "what the URL of the key set answered").keys
            }
        except (Unavailable, StartRefused) as failure:
            _log.warning("the key set could not be fetched", why=str(failure))
            return False
        finally:
            self._tried.set()
        # The time before it was asked: nothing in the answer is older.
        self._fetched_at = self._tried_at
        if {kid: key.as_dict(private=False) for kid, key in found.items()} != {
            kid: key.as_dict(private=False) for kid, key in self._keys.items()
        }:
            self._keys = found
            self.version += 1
        return True
