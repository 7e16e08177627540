"""`MirrorService` over the registry: requests in, values out. Raises; statuses are made elsewhere."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from relayfile.auth import current_principal
from relayfile.clock import Clock
from relayfile.errors import FieldViolation, MirrorNotFound
from relayfile.paths import contains
from relayfile.syncd import wire, wire_lists
from relayfile.syncd.answers import fingerprint
from relayfile.syncd.mirror import Mirror
from relayfile.syncd.progress import Progress
from relayfile.syncd.registry import Registry
from relayfile.syncd.requests import Requests, page_size
from relayfile.syncd.servicer_conflicts import EditsOfMirrors
from relayfile.syncd.servicer_lists import ListsOfMirrors
from relayfile.syncd.servicer_waits import WaitsForMirrors
from relayfile.v1 import mirror_pb2
from relayfile.v1.mirror_pb2_grpc import MirrorServiceServicer

DIFFERING_DEFAULT, DIFFERING_MAX = 100, 10_000
INTERVAL_DEFAULT_S, INTERVAL_MIN_S, INTERVAL_MAX_S = 0.25, 0.05, 10.0
Context = Any  # grpc.aio.ServicerContext, generic in its stubs only


class MirrorService(EditsOfMirrors, ListsOfMirrors, WaitsForMirrors, MirrorServiceServicer):
    """The mirrors of this process."""

    def __init__(self, registry: Registry, clock: Clock) -> None:
        self._registry = registry
        self._requests = Requests(registry)
        self._clock = clock

    async def CreateMirror(
        self, request: mirror_pb2.CreateMirrorRequest, _context: Context
    ) -> mirror_pb2.CreateMirrorResponse:
        wanted = wire.wanted_mirror(request)
        mark = fingerprint(request)
        async with self._registry.answers.once(request.request_id):
            mirror = self._registry.at(wanted.directory) if request.update_existing else None
            if mirror is not None:
                mirror = await self._registry.update(mirror, wanted, request_id=request.request_id, fingerprint=mark)
            else:
                mirror = self._registry.create(
                    wanted,
                    adopt_existing=request.adopt_existing_files,
                    request_id=request.request_id,
                    fingerprint=mark,
                )
        return mirror_pb2.CreateMirrorResponse(mirror=wire.mirror_message(mirror))

    async def GetMirror(self, request: mirror_pb2.GetMirrorRequest, _context: Context) -> mirror_pb2.GetMirrorResponse:
        mirror = self._requests.mirror(request.mirror_id)
        await mirror.look()
        return mirror_pb2.GetMirrorResponse(mirror=wire.mirror_message(mirror))

    async def ListMirrors(
        self, request: mirror_pb2.ListMirrorsRequest, _context: Context
    ) -> mirror_pb2.ListMirrorsResponse:
        size = page_size(request.page_size)
        after = wire.page_start(request)
        principal = current_principal()
        found = [
            mirror
            for mirror in self._registry
            if mirror.record.mirror_id > after
            and principal.may_use(mirror.record.workspace_id)
            and request.workspace_id in ("", mirror.record.workspace_id)
            and (not request.directory or contains(mirror.record.directory, request.directory.rstrip("/") or "/"))
        ]
        for mirror in found[:size]:
            await mirror.look()
        token = wire.page_token(request, found[size - 1].record.mirror_id) if len(found) > size else ""
        return mirror_pb2.ListMirrorsResponse(
            mirrors=[wire.mirror_message(mirror) for mirror in found[:size]], next_page_token=token
        )

    async def DeleteMirror(
        self, request: mirror_pb2.DeleteMirrorRequest, _context: Context
    ) -> mirror_pb2.DeleteMirrorResponse:
        async def forget(mirror: Mirror) -> mirror_pb2.DeleteMirrorResponse:
            unsent = await self._registry.forget(mirror, force=request.force)
            return mirror_pb2.DeleteMirrorResponse(directory=mirror.record.directory, unsent_edit_count=unsent.edits)

        return await self._requests.once("DeleteMirror", request, mirror_pb2.DeleteMirrorResponse, forget)

    async def ApproveDeletes(
        self, request: mirror_pb2.ApproveDeletesRequest, _context: Context
    ) -> mirror_pb2.ApproveDeletesResponse:
        async def approve(mirror: Mirror) -> mirror_pb2.ApproveDeletesResponse:
            restore = request.decision == mirror_pb2.DELETE_DECISION_RESTORE
            await mirror.approve_deletes(request.plan_id, restore=restore)
            return mirror_pb2.ApproveDeletesResponse(mirror=wire.mirror_message(mirror))

        wrong = wire_lists.check_decision(request)
        return await self._requests.once("ApproveDeletes", request, mirror_pb2.ApproveDeletesResponse, approve, wrong)

    async def PullMirror(
        self, request: mirror_pb2.PullMirrorRequest, _context: Context
    ) -> AsyncIterator[mirror_pb2.PullMirrorResponse]:
        via = wire.via_of(request.via)
        interval_s = _interval_s(request)
        async with self._requests.first("PullMirror", request) as turn:
            if turn.mirror is None:
                yield mirror_pb2.PullMirrorResponse(result=mirror_pb2.PullResult.FromString(turn.kept or b""))
                return
            mirror = turn.mirror
            async with asyncio.TaskGroup() as tasks:
                pulling = tasks.create_task(mirror.pull(full=request.full, via=via))
                while True:
                    done, _ = await asyncio.wait({pulling}, timeout=interval_s)
                    if done:
                        break
                    if mirror.progress is not None:
                        yield mirror_pb2.PullMirrorResponse(progress=self._progress(mirror, mirror.progress))
            if pulling.cancelled():
                raise MirrorNotFound(mirror=request.mirror_id)  # it was forgotten meanwhile
            progress = pulling.result()
            yield mirror_pb2.PullMirrorResponse(progress=self._progress(mirror, progress))
            result = wire.result_message(mirror, progress, self._clock.monotonic())
            turn.keep(result.SerializeToString())
            yield mirror_pb2.PullMirrorResponse(result=result)

    async def AuditMirror(
        self, request: mirror_pb2.AuditMirrorRequest, _context: Context
    ) -> mirror_pb2.AuditMirrorResponse:
        async def audit(mirror: Mirror) -> mirror_pb2.AuditMirrorResponse:
            audited = await mirror.audit(
                repair=request.repair,
                look=request.sweep,
                verify_content=request.verify_content,
                paths_max=min(request.differing_paths_max or DIFFERING_DEFAULT, DIFFERING_MAX),
            )
            return mirror_pb2.AuditMirrorResponse(
                audit=wire.audit_message(audited, mirror.seen.sweep_time_us),
                differing_remote_paths=audited.differing.paths if audited.differing is not None else (),
            )

        wrong = [FieldViolation("differing_paths_max", "is negative")] if request.differing_paths_max < 0 else []
        return await self._requests.once("AuditMirror", request, mirror_pb2.AuditMirrorResponse, audit, wrong)

    def _progress(self, mirror: Mirror, progress: Progress) -> mirror_pb2.PullProgress:
        problems = mirror.opened.journal.problems.count() if mirror.opened is not None else 0
        return wire.progress_message(progress, self._clock.monotonic(), problems)


def _interval_s(request: mirror_pb2.PullMirrorRequest) -> float:
    if not request.HasField("progress_interval"):
        return INTERVAL_DEFAULT_S
    seconds = request.progress_interval.ToMicroseconds() / 1e6
    return min(max(seconds, INTERVAL_MIN_S), INTERVAL_MAX_S)
