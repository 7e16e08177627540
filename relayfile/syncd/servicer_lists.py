"""The part of `MirrorService` that lists what a mirror could not do, and what it keeps; and puts the latter back."""

from typing import Any

from relayfile.errors import InvalidArgument
from relayfile.syncd import wire_lists
from relayfile.syncd.mirror import Mirror
from relayfile.syncd.requests import Requests, page_size
from relayfile.syncd.rows import Problem
from relayfile.syncd.shown import MirrorState
from relayfile.v1 import mirror_pb2

Context = Any  # grpc.aio.ServicerContext, generic in its stubs only


class ListsOfMirrors:
    """Problems and trash."""

    _requests: Requests

    async def ListProblems(
        self, request: mirror_pb2.ListProblemsRequest, _context: Context
    ) -> mirror_pb2.ListProblemsResponse:
        size = page_size(request.page_size)
        wrong = wire_lists.check_reason(request.reason)
        if wrong:
            raise InvalidArgument(wrong)
        after = wire_lists.problems_start(request)
        shown = self._requests.mirror(request.mirror_id)
        cycle_us = shown.cadence.next_cycle_us if shown.seen.state is MirrorState.FOLLOWING else 0
        mirror = await self._requests.opened(request.mirror_id)
        below = wire_lists.remote_directory(request.remote_path)
        found = mirror.journal.problems.page(after, size + 1, reason=request.reason, below=below)
        rows = mirror.journal.load([each.path for each in found])
        sends_us = mirror.journal.outbox.attempts_us(rows)

        def message(problem: Problem) -> mirror_pb2.MirrorProblem:
            row = rows.get(problem.path)
            next_us = wire_lists.next_attempt_us(problem, row, sends_us.get(problem.path), cycle_us)
            return wire_lists.problem_message(problem, row.disk_path if row is not None else "", next_us)

        return mirror_pb2.ListProblemsResponse(
            problems=[message(each) for each in found[:size]],
            next_page_token=wire_lists.problems_token(request, found[size - 1]) if len(found) > size else "",
        )

    async def ListTrash(self, request: mirror_pb2.ListTrashRequest, _context: Context) -> mirror_pb2.ListTrashResponse:
        size = page_size(request.page_size)
        reason = wire_lists.trash_reason(request.reason)
        before = wire_lists.trash_start(request)
        mirror = await self._requests.opened(request.mirror_id)
        below = wire_lists.local_directory(request.local_path, "local_path")
        found = mirror.journal.trash.page(before, size + 1, below=below, reason=reason)
        return mirror_pb2.ListTrashResponse(
            entries=[wire_lists.trash_message(each, mirror) for each in found[:size]],
            next_page_token=wire_lists.trash_token(request, found[size - 1]) if len(found) > size else "",
        )

    async def RestoreTrash(
        self, request: mirror_pb2.RestoreTrashRequest, _context: Context
    ) -> mirror_pb2.RestoreTrashResponse:
        async def put_back(mirror: Mirror) -> mirror_pb2.RestoreTrashResponse:
            directory = wire_lists.local_directory(request.local_directory, "local_directory")
            restored = await mirror.restore(request.trash_ids, directory, overwrite=request.overwrite)
            return mirror_pb2.RestoreTrashResponse(results=[wire_lists.restored_message(each) for each in restored])

        wrong = wire_lists.check_restore(request)
        return await self._requests.once("RestoreTrash", request, mirror_pb2.RestoreTrashResponse, put_back, wrong)
