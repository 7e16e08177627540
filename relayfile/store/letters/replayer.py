"""Works through what is queued for another try: changes are planned again here, requests are handed to ingest.

Owns the pace and the turns of the workspaces. What is queued is durable (state `replaying`), so that a restart goes on
where it was; each batch is one entry of its workspace like any other. Refuses to decide what becomes of a dead letter.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from relayfile import faults
from relayfile.errors import Draining, NotOwner, Overloaded, RelayfileError, Unavailable
from relayfile.store.commit import Asker, Committer
from relayfile.store.engine import Engine, KeptDeadLetter, WorkspaceKey
from relayfile.store.letters.letter_kinds import ReplayChanges
from relayfile.store.letters.redo_desk import RedoDesk
from relayfile.store.plan.letters import LetterRef
from relayfile.store.plan.settle import STAGE_APPLY, STAGE_NORMALISE
from relayfile.telemetry import get_logger
from relayfile.v1 import shard_pb2

BATCH_LETTERS_MAX = 50
"""Replays in one entry of a workspace."""
BATCH_BYTES_MAX = 8 << 20
"""Their contents; a single one may be larger."""
RETRY_S = 1.0

_log = get_logger(__name__)
REST_S_MAX = 2.0
"""Longest pause before it is looked whether something was queued."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayPolicy:
    """The settings of replays."""

    letters_per_second_max: int = 50
    lease_s: float = 60.0
    """How long an ingest process may take for a redo."""


class Replayer:
    """`run` it in a task; `wake` it when something was queued."""

    def __init__(
        self,
        engine: Engine,
        committer: Committer,
        changes: ReplayChanges,
        desk: RedoDesk,
        policy: ReplayPolicy,
        ended: Callable[[int, int], None],
    ) -> None:
        """`ended` is told how many changes succeeded and how many failed again."""
        self._engine = engine
        self._committer = committer
        self._changes = changes
        self._desk = desk
        self._policy = policy
        self._ended = ended
        self._wake = asyncio.Event()
        desk.on_change = self.wake

    def wake(self) -> None:
        """There may be something to do."""
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled. Raises `StorageFailed` when the process must end."""
        while True:
            self._wake.clear()
            try:
                tried = await self._round()
            except (Unavailable, Overloaded, NotOwner, Draining):
                # The disk is full, the queue is, the shard is elsewhere by now, or we stop: what is queued stays so.
                await asyncio.sleep(RETRY_S)
                continue
            if not tried:
                await self._rest()

    async def _rest(self) -> None:
        lease_end_s = self._desk.next_end_s()
        try:
            async with asyncio.timeout(REST_S_MAX if lease_end_s is None else min(lease_end_s, REST_S_MAX)):
                await self._wake.wait()
        except TimeoutError:
            pass  # A lease has ended, or something was queued by an entry that wakes nobody.

    async def _round(self) -> int:
        """Something of each workspace in turn; how many were tried or handed over."""
        tried = 0
        for key in await self._engine.replaying_workspaces():
            for step in (self._plan_again, self._hand_over):
                number = await self._step(step, key)
                tried += number
                if number:
                    await asyncio.sleep(number / self._policy.letters_per_second_max)
        return tried

    async def _step(self, step: Callable[[WorkspaceKey], Awaitable[int]], key: WorkspaceKey) -> int:
        try:
            return await step(key)
        except (RelayfileError, asyncio.CancelledError):
            raise
        except Exception:  # noqa: BLE001 - a fault of ours in one workspace: the others go on, and the node lives
            _log.exception("dead letters could not be replayed", workspace=key.workspace_id)
            return 0

    async def _plan_again(self, key: WorkspaceKey) -> int:
        most = min(BATCH_LETTERS_MAX, self._policy.letters_per_second_max)
        async with self._engine.view(key) as view:
            queued = await view.replaying_letters(STAGE_APPLY, most)
        batch, byte_count = _batch(queued)
        if not batch:
            return 0
        result = await self._committer.submit(
            key, self._changes, batch, change_count=len(batch), byte_count=byte_count, asker=Asker.NODE
        )
        faults.point("store.replay.after_batch")
        self._ended(*result)
        return result.succeeded_count + result.failed_count

    async def _hand_over(self, key: WorkspaceKey) -> int:
        room = min(self._desk.room, BATCH_LETTERS_MAX, self._policy.letters_per_second_max)
        if not room:
            return 0
        redos: list[shard_pb2.Redo] = []
        async with self._engine.view(key) as view:
            for ref in await view.replaying_letters(STAGE_NORMALISE, self._desk.lease_count + room):
                if len(redos) == room:
                    break
                if not self._desk.is_leased(ref.dead_letter_id):
                    kept = await view.dead_letter(ref.dead_letter_id)
                    assert kept is not None, "of the same snapshot"
                    redos.append(_redo(key, kept))
        handed = 0
        for redo in redos:
            if self._desk.room:  # a stream may have ended meanwhile
                self._desk.hand_over(redo)
                handed += 1
        return handed


def _batch(queued: Sequence[LetterRef]) -> tuple[tuple[str, ...], int]:
    """(ids, bytes) of the first of them, as far as they fit."""
    ids: list[str] = []
    byte_count = 0
    for ref in queued:
        if ids and byte_count + ref.body_size_bytes > BATCH_BYTES_MAX:
            break
        ids.append(ref.dead_letter_id)
        byte_count += ref.body_size_bytes
    return tuple(ids), byte_count


def _redo(key: WorkspaceKey, kept: KeptDeadLetter) -> shard_pb2.Redo:
    row = kept.row
    redo = shard_pb2.Redo(
        dead_letter_id=row.dead_letter_id,
        workspace_id=key.workspace_id,
        provider=row.key.provider,
        delivery_id=row.key.delivery_id,
        envelope_id=row.envelope_id,
        received_unix_us=row.received_us,
        correlation_id=row.correlation_id,
        traceparent=row.traceparent,
        reason=row.failure.reason,
    )
    redo.raw.headers.update(row.raw.headers)
    redo.raw.body_follows_bytes = kept.body_size_bytes
    return redo
