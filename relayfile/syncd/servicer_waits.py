"""The part of `MirrorService` that waits: for a revision on disk, and for whatever changes."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from google.protobuf.duration_pb2 import Duration

from relayfile.auth import current_principal
from relayfile.clock import Clock
from relayfile.errors import CursorExpired, FieldViolation, InvalidArgument
from relayfile.syncd import wire
from relayfile.syncd.mirror import Mirror
from relayfile.syncd.requests import Requests
from relayfile.syncd.rows import Cursor
from relayfile.v1 import mirror_pb2

WATCH_INTERVAL_S, WATCH_INTERVAL_MIN_S, WATCH_INTERVAL_MAX_S = 0.5, 0.05, 10.0
SIGN_OF_LIFE_S = 10.0
Context = Any  # grpc.aio.ServicerContext, generic in its stubs only


class WaitsForMirrors:
    """Calls that last."""

    _requests: Requests
    _clock: Clock

    async def WaitMirror(
        self, request: mirror_pb2.WaitMirrorRequest, _context: Context
    ) -> mirror_pb2.WaitMirrorResponse:
        mirror = self._requests.mirror(request.mirror_id)
        if request.revision < 0:
            raise InvalidArgument([FieldViolation("revision", "is negative")])
        wanted = Cursor(request.revision, request.history_id)
        if not request.revision:
            now = await (await self._requests.opened(request.mirror_id)).feed.workspace()
            if request.history_id not in ("", now.history_id):
                raise CursorExpired(history_id=now.history_id, oldest=now.revision)
            wanted = now
        while True:
            mirror = self._requests.mirror(request.mirror_id)
            await mirror.look()
            here = mirror.on_disk()
            known = mirror.opened.journal.cursor if mirror.opened is not None else None
            if known is not None and known.history_id and not wanted.history_id:
                wanted = Cursor(wanted.revision, known.history_id)
            if known is not None and known.history_id not in ("", wanted.history_id):
                raise CursorExpired(history_id=known.history_id, oldest=known.revision)
            if here is not None and here.revision >= wanted.revision:
                return _arrived(mirror, here)
            await mirror.display.change()

    async def WatchMirrors(
        self, request: mirror_pb2.WatchMirrorsRequest, _context: Context
    ) -> AsyncIterator[mirror_pb2.WatchMirrorsResponse]:
        for mirror_id in request.mirror_ids:
            self._requests.mirror(mirror_id)
        interval_s = watch_interval_s(request.interval) if request.HasField("interval") else WATCH_INTERVAL_S
        shown: dict[str, bytes] = {}
        told = -SIGN_OF_LIFE_S
        while True:
            mirrors = {mirror.record.mirror_id: mirror for mirror in self._watched(request)}
            message = mirror_pb2.WatchMirrorsResponse(deleted_mirror_ids=sorted(shown.keys() - mirrors.keys()))
            for gone in message.deleted_mirror_ids:
                del shown[gone]
            for mirror_id, mirror in mirrors.items():
                await mirror.look()
                now = wire.mirror_message(mirror)
                raw = now.SerializeToString(deterministic=True)
                if shown.get(mirror_id) != raw:
                    shown[mirror_id] = raw
                    message.mirrors.append(now)
            if message.mirrors or message.deleted_mirror_ids or self._clock.monotonic() - told >= SIGN_OF_LIFE_S:
                told = self._clock.monotonic()
                yield message
            if request.mirror_ids and not mirrors:
                return  # all that it was about are forgotten
            await asyncio.sleep(interval_s)

    def _watched(self, request: mirror_pb2.WatchMirrorsRequest) -> list[Mirror]:
        principal = current_principal()
        return [
            mirror
            for mirror in self._requests.registry
            if principal.may_use(mirror.record.workspace_id)
            and (not request.mirror_ids or mirror.record.mirror_id in request.mirror_ids)
        ]


def watch_interval_s(interval: Duration) -> float:
    """How often to look, within bounds."""
    return min(max(interval.ToMicroseconds() / 1e6, WATCH_INTERVAL_MIN_S), WATCH_INTERVAL_MAX_S)


def _arrived(mirror: Mirror, here: Cursor) -> mirror_pb2.WaitMirrorResponse:
    message = mirror_pb2.WaitMirrorResponse(revision=here.revision, history_id=here.history_id)
    if mirror.seen.audited is not None:
        message.verdict = mirror_pb2.MirrorVerdict.ValueType(int(mirror.seen.audited.result.verdict))
    if mirror.opened is not None:
        message.file_counts.CopyFrom(wire.file_counts(mirror.opened))
    return message
