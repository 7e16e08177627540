"""A provider's API in a test: a real HTTP server on loopback that answers what it is told to, and remembers."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web


@dataclass(frozen=True, slots=True)
class Received:
    """One request as it came."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Reply:
    """What is answered; `after` is waited for first."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    after: asyncio.Event | None = None


@dataclass(slots=True)
class FakeTarget:
    """See the module. Replies are used up in order; the last one stays."""

    url: str = ""
    replies: list[Reply] = field(default_factory=lambda: [Reply()])
    received: list[Received] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def answer(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.received.append(Received(request.method, request.raw_path, dict(request.headers), body))
        self.changed.set()
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
            if reply.after is not None:
                await reply.after.wait()
            return web.Response(status=reply.status, body=reply.body, headers=reply.headers)
        finally:
            self.at_once -= 1

    async def got(self, count: int) -> list[Received]:
        """The requests, once there are so many."""
        async with asyncio.timeout(10):
            while len(self.received) < count:
                self.changed.clear()
                await self.changed.wait()
        return self.received


@asynccontextmanager
async def fake_target() -> AsyncIterator[FakeTarget]:
    """A target that is running."""
    target = FakeTarget()
    app = web.Application(client_max_size=64 << 20)
    app.router.add_route("*", "/{path:.*}", target.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    target.url = f"http://{host}:{port}"
    try:
        yield target
    finally:
        await runner.cleanup()
