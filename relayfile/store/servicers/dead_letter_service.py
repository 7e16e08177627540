"""DeadLetterService: what could not be processed, listed, described, read, tried again and put aside.

Owns filters and pages of the list, and what a request may ask for. Headers are allow-listed before they are stored;
nothing is hidden here.
"""

from collections.abc import AsyncGenerator
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from relayfile.store.engine import DeadLetterFilter, WorkspaceKey
from relayfile.store.letters.dead_letters import NOT_REPLAYING, DeadLetters
from relayfile.store.letters.letter_kinds import QueueAnswer, QueueRequest
from relayfile.store.once import mark_of
from relayfile.store.order import current_order
from relayfile.store.plan.letters import LetterState
from relayfile.store.servicers.checks import Checks
from relayfile.store.servicers.dead_letter_reading import DeadLetterReading
from relayfile.store.servicers.reading import Reading
from relayfile.store.servicers.wire import STAGE_NAMES
from relayfile.v1 import dead_letter_pb2, dead_letter_pb2_grpc

if TYPE_CHECKING:
    from relayfile.interception import Context

PAGE_DEFAULT = 100
PAGE_MAX = 1_000
ID_BYTES_MAX = 64
IDS_MAX = 1_000
REPLAY_COUNT_DEFAULT = 1_000
REPLAY_COUNT_MAX = 10_000
SUBJECT_IDS_SHOWN = 3
_SERVICE = "relayfile.v1.DeadLetterService"


class DeadLetterService(dead_letter_pb2_grpc.DeadLetterServiceServicer):
    """Dead letters of this node's workspaces."""

    def __init__(self, reading: Reading, letters: DeadLetters, retention_us: int) -> None:
        """`retention_us`: how long an acknowledged dead letter stays."""
        self._reading = reading
        self._letters = letters
        self._kept = DeadLetterReading(reading, retention_us)

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
            before_id = self._reading.tokens.unseal(binding, request.page_token)
            kept = await view.dead_letters(chosen, before_id, size + 1)
            totals = await view.letter_totals()
            shown = await self._kept.shown(view, kept[:size])
        answer.pending_count = sum(each.letter_count for each in totals if each.state is LetterState.PENDING)
        answer.total_count = sum(each.letter_count for each in totals)
        for each in shown:
            self._kept.fill(answer.dead_letters.add(), request.workspace_id, each)
        if len(kept) > size:
            answer.next_page_token = self._reading.tokens.seal(binding, kept[size - 1].row.dead_letter_id)
        return answer

    async def GetDeadLetter(
        self, request: dead_letter_pb2.GetDeadLetterRequest, context: "Context"
    ) -> dead_letter_pb2.GetDeadLetterResponse:
        return await self._kept.describe(self._checked_key(request), request.dead_letter_id)

    async def ReadDeadLetter(
        self, request: dead_letter_pb2.ReadDeadLetterRequest, context: "Context"
    ) -> AsyncGenerator[dead_letter_pb2.ReadDeadLetterResponse, None]:
        async for message in self._kept.read(self._checked_key(request), request.dead_letter_id):
            yield message

    async def ReplayDeadLetters(
        self, request: dead_letter_pb2.ReplayDeadLettersRequest, context: "Context"
    ) -> dead_letter_pb2.ReplayDeadLettersResponse:
        chosen = _checked_replay(request)
        key = self._reading.key(request.workspace_id)
        async with self._reading.snapshot(key):
            pass  # the workspace exists
        most = min(request.replay_count_max or REPLAY_COUNT_DEFAULT, REPLAY_COUNT_MAX)
        if chosen is None:
            ids = sorted(set(request.dead_letter_ids))
            replay = QueueRequest(tuple(ids[:most]), NOT_REPLAYING, len(ids[most:]))
            subject = _some(ids)
        else:
            state = LetterState(chosen.state or LetterState.PENDING)
            selected, remaining = await self._letters.choose(key, replace(chosen, state=state), most)
            replay = QueueRequest(selected, NOT_REPLAYING & {state}, remaining)
            subject = _described(chosen)
        if request.validate_only:
            return _answer(await self._preview(key, replay))
        order = current_order(request.reason, request.request_id)
        mark = mark_of(f"{_SERVICE}/ReplayDeadLetters", request)
        return _answer(await self._letters.queue(key, replace(replay, order=order, subject=subject), mark))

    async def AcknowledgeDeadLetter(
        self, request: dead_letter_pb2.AcknowledgeDeadLetterRequest, context: "Context"
    ) -> dead_letter_pb2.AcknowledgeDeadLetterResponse:
        checks = Checks()
        checks.reason(request.reason)
        checks.request_id(request.request_id)
        key = self._checked_key(request, checks)
        async with self._reading.snapshot(key):
            pass  # the workspace exists
        order = current_order(request.reason, request.request_id)
        mark = mark_of(f"{_SERVICE}/AcknowledgeDeadLetter", request)
        kept = await self._letters.acknowledge(key, request.dead_letter_id, order, mark)
        answer = dead_letter_pb2.AcknowledgeDeadLetterResponse()
        self._kept.fill(answer.dead_letter, request.workspace_id, kept)
        return answer

    def _checked_key(
        self,
        request: dead_letter_pb2.GetDeadLetterRequest
        | dead_letter_pb2.ReadDeadLetterRequest
        | dead_letter_pb2.AcknowledgeDeadLetterRequest,
        checks: Checks | None = None,
    ) -> WorkspaceKey:
        """The workspace of a request about one dead letter."""
        checks = checks or Checks()
        checks.workspace(request.workspace_id)
        _check_id(checks, request.dead_letter_id, "dead_letter_id")
        checks.done()
        return self._reading.key(request.workspace_id)

    async def _preview(self, key: WorkspaceKey, replay: QueueRequest) -> QueueAnswer:
        async with self._reading.engine.view(key) as view:
            refs = await view.letter_refs(replay.dead_letter_ids)
        states = [ref.state for ref in refs.values()]
        return QueueAnswer(
            sum(state in replay.states for state in states),
            states.count(LetterState.REPLAYING),
            replay.remaining_count,
            tuple(each for each in replay.dead_letter_ids if each not in refs),
        )


def _check_id(checks: Checks, dead_letter_id: str, field: str) -> None:
    if not dead_letter_id:
        checks.refuse(field, "is required")
    checks.require(len(dead_letter_id.encode()) <= ID_BYTES_MAX, field, f"is longer than {ID_BYTES_MAX} bytes")


def _checked_replay(request: dead_letter_pb2.ReplayDeadLettersRequest) -> DeadLetterFilter | None:
    """The filter of a replay; None: by ids."""
    checks = Checks()
    checks.workspace(request.workspace_id)
    if bool(request.dead_letter_ids) is request.HasField("filter"):
        checks.refuse("filter", "and dead_letter_ids: exactly one of them must be given")
    checks.at_most(len(request.dead_letter_ids), IDS_MAX, "dead_letter_ids", "ids")
    for index, dead_letter_id in enumerate(request.dead_letter_ids[:IDS_MAX]):
        _check_id(checks, dead_letter_id, f"dead_letter_ids[{index}]")
    chosen = _filter(checks, request.filter) if request.HasField("filter") else None
    checks.not_negative(request.replay_count_max, "replay_count_max")
    checks.reason(request.reason)
    checks.request_id(request.request_id)
    checks.done()
    return chosen


def _filter(checks: Checks, asked: dead_letter_pb2.DeadLetterFilter) -> DeadLetterFilter:
    known = dead_letter_pb2.DeadLetterState.values()
    checks.require(asked.state in known, "filter.state", f"is {asked.state}, which is not a state")
    unspecified = dead_letter_pb2.DEAD_LETTER_STAGE_UNSPECIFIED
    checks.require(
        asked.stage == unspecified or asked.stage in STAGE_NAMES,
        "filter.stage",
        f"is {asked.stage}, which is not a stage",
    )
    received_from = asked.received_from if asked.HasField("received_from") else None
    received_before = asked.received_before if asked.HasField("received_before") else None
    return DeadLetterFilter(
        provider=asked.provider,
        reason=asked.reason,
        stage=STAGE_NAMES.get(asked.stage, ""),
        state=asked.state,
        received_from_us=checks.time_us(received_from, "filter.received_from"),
        received_before_us=checks.time_us(received_before, "filter.received_before"),
    )


def _some(ids: list[str]) -> str:
    more = f" and {len(ids) - SUBJECT_IDS_SHOWN} more" if len(ids) > SUBJECT_IDS_SHOWN else ""
    return ", ".join(ids[:SUBJECT_IDS_SHOWN]) + more


def _described(chosen: DeadLetterFilter) -> str:
    parts = [f"{name}={value}" for name, value in asdict(chosen).items() if value]
    return " ".join(parts) or "all pending"


def _answer(answer: QueueAnswer) -> dead_letter_pb2.ReplayDeadLettersResponse:
    return dead_letter_pb2.ReplayDeadLettersResponse(
        queued_count=answer.queued_count,
        already_replaying_count=answer.already_replaying_count,
        remaining_count=answer.remaining_count,
        missing_dead_letter_ids=answer.missing_dead_letter_ids,
    )
