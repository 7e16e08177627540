"""The part of `MirrorService` about local edits: waiting until they have arrived, and what collided."""

from typing import Any

from relayfile.errors import ConflictNotFound
from relayfile.syncd import wire_conflicts
from relayfile.syncd.mirror import Mirror
from relayfile.syncd.requests import PAGE_MAX, Requests, page_size
from relayfile.syncd.resolve import Choice
from relayfile.syncd.rows import Conflict
from relayfile.syncd.wire_lists import remote_directory
from relayfile.v1 import mirror_pb2

Context = Any  # grpc.aio.ServicerContext, generic in its stubs only
_CHANGED_MAX = 1_000


class EditsOfMirrors:
    """Flushing, and conflicts."""

    _requests: Requests

    async def FlushMirror(
        self, request: mirror_pb2.FlushMirrorRequest, _context: Context
    ) -> mirror_pb2.FlushMirrorResponse:
        flushed = await self._requests.mirror(request.mirror_id).flush()
        return mirror_pb2.FlushMirrorResponse(
            acknowledged_count=flushed.acknowledged_count,
            refused_count=flushed.refused_count,
            revision=flushed.revision,
        )

    async def ListConflicts(
        self, request: mirror_pb2.ListConflictsRequest, _context: Context
    ) -> mirror_pb2.ListConflictsResponse:
        size = page_size(request.page_size)
        after = wire_conflicts.conflicts_start(request)
        mirror = await self._requests.opened(request.mirror_id)
        found = mirror.journal.conflicts.page(after, size + 1, below=remote_directory(request.remote_path))
        return mirror_pb2.ListConflictsResponse(
            conflicts=[wire_conflicts.conflict_message(each) for each in found[:size]],
            next_page_token=wire_conflicts.conflicts_token(request, found[size - 1]) if len(found) > size else "",
        )

    async def ResolveConflict(
        self, request: mirror_pb2.ResolveConflictRequest, _context: Context
    ) -> mirror_pb2.ResolveConflictResponse:
        async def work(mirror: Mirror) -> mirror_pb2.ResolveConflictResponse:
            journal = (await self._requests.opened(request.mirror_id)).journal
            answer = mirror_pb2.ResolveConflictResponse()
            choice = Choice(request.choice)

            async def end(conflicts: list[Conflict]) -> None:
                resolved = await mirror.resolve(conflicts, choice)
                answer.resolved_count += len(resolved.ended)
                room = _CHANGED_MAX - len(answer.changed_conflicts)
                answer.changed_conflicts.extend(map(wire_conflicts.conflict_message, resolved.changed[:room]))

            if request.conflict_id:
                conflict = journal.conflicts.get(request.conflict_id)
                if conflict is None:
                    raise ConflictNotFound(conflict=request.conflict_id)
                await end([conflict])
            else:
                after, below = ("", ""), remote_directory(request.all_in_remote_path)
                while page := journal.conflicts.page(after, PAGE_MAX, below=below):
                    await end(page)
                    after = page[-1].path, page[-1].conflict_id
            answer.open_count = journal.conflicts.count()
            return answer

        wrong = wire_conflicts.check_resolve(request)
        return await self._requests.once("ResolveConflict", request, mirror_pb2.ResolveConflictResponse, work, wrong)
