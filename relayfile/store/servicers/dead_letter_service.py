"""DeadLetterService: what could not be processed, listed and described. Reading bodies and replays are not served yet.

Owns filters and pages of the list. Headers are allow-listed before they are stored; nothing is hidden here.
"""

from typing import TYPE_CHECKING

from relayfile.errors import DeadLetterNotFound
from relayfile.interception import not_served
from relayfile.page_token import seal, unseal
from relayfile.store.engine import DeadLetterFilter
from relayfile.store.servicers.checks import Checks
from relayfile.store.servicers.reading import Reading
from relayfile.store.servicers.wire import STAGE_NAMES, fill_dead_letter
from relayfile.v1 import dead_letter_pb2, dead_letter_pb2_grpc
from relayfile.wire import to_us

if TYPE_CHECKING:
    from relayfile.interception import Context

PAGE_DEFAULT = 100
PAGE_MAX = 1_000
ID_BYTES_MAX = 64


class DeadLetterService(dead_letter_pb2_grpc.DeadLetterServiceServicer):
    """Dead letters of this node's workspaces."""

    ReadDeadLetter = not_served
    ReplayDeadLetters = not_served
    AcknowledgeDeadLetter = not_served

    def __init__(self, reading: Reading) -> None:
        self._reading = reading

    async def ListDeadLetters(
        self, request: dead_letter_pb2.ListDeadLettersRequest, context: "Context"
    ) -> dead_letter_pb2.ListDeadLettersResponse:
        checks = Checks()
        checks.workspace(request.workspace_id)
        chosen = _filter(checks, request.filter)
        size = checks.page_size(request.page_size, PAGE_DEFAULT, PAGE_MAX)
        checks.page_token(request.page_token)
        checks.done()
        answer = dead_letter_pb2.ListDeadLettersResponse()
        async with self._reading.snapshot(self._reading.key(request.workspace_id)) as (view, workspace):
            binding = ("ListDeadLetters", request.workspace_id, workspace.history_id, repr(chosen))
            before_id = unseal(binding, request.page_token)
            kept = await view.dead_letters(chosen, before_id, size + 1)
            answer.pending_count, answer.total_count = await view.dead_letter_counts()
        for each in kept[:size]:
            fill_dead_letter(answer.dead_letters.add(), request.workspace_id, each)
        if len(kept) > size:
            answer.next_page_token = seal(binding, kept[size - 1].row.dead_letter_id)
        return answer

    async def GetDeadLetter(
        self, request: dead_letter_pb2.GetDeadLetterRequest, context: "Context"
    ) -> dead_letter_pb2.GetDeadLetterResponse:
        checks = Checks()
        checks.workspace(request.workspace_id)
        if not request.dead_letter_id:
            checks.refuse("dead_letter_id", "is required")
        checks.require(
            len(request.dead_letter_id) <= ID_BYTES_MAX, "dead_letter_id", f"is longer than {ID_BYTES_MAX} bytes"
        )
        checks.done()
        async with self._reading.snapshot(self._reading.key(request.workspace_id)) as (view, _):
            kept = await view.dead_letter(request.dead_letter_id)
        if kept is None:
            raise DeadLetterNotFound(dead_letter=request.dead_letter_id)
        answer = dead_letter_pb2.GetDeadLetterResponse()
        fill_dead_letter(answer.dead_letter, request.workspace_id, kept)
        answer.headers.update(kept.row.raw.headers)
        return answer


def _filter(checks: Checks, asked: dead_letter_pb2.DeadLetterFilter) -> DeadLetterFilter:
    known = dead_letter_pb2.DeadLetterState.values()
    checks.require(asked.state in known, "filter.state", f"is {asked.state}, which is not a state")
    unspecified = dead_letter_pb2.DEAD_LETTER_STAGE_UNSPECIFIED
    checks.require(
        asked.stage == unspecified or asked.stage in STAGE_NAMES,
        "filter.stage",
        f"is {asked.stage}, which is not a stage",
    )
    return DeadLetterFilter(
        provider=asked.provider,
        reason=asked.reason,
        stage=STAGE_NAMES.get(asked.stage, ""),
        state=asked.state,
        received_from_us=to_us(asked.received_from) if asked.HasField("received_from") else None,
        received_before_us=to_us(asked.received_before) if asked.HasField("received_before") else None,
    )
