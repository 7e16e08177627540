"""What is kept of a dead letter, as messages: its description, its change, its bytes.

Owns the difference between the stages: of a request its body is kept as it came, of a change the whole `FoldMember`,
whose content is what a caller reads.
"""

import hashlib
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Final

from relayfile.errors import DataCorrupted, DeadLetterNotFound
from relayfile.paths import ROOT
from relayfile.store.access import ReadAccess
from relayfile.store.engine import Engine, KeptDeadLetter, TreeView, WorkspaceKey
from relayfile.store.plan.settle import STAGE_APPLY
from relayfile.store.servicers.reading import Reading
from relayfile.store.servicers.wire import CHANGE_KINDS, fill_dead_letter
from relayfile.v1 import dead_letter_pb2, shard_pb2, types_pb2
from relayfile.wire import set_us

CHUNK_BYTES_MAX: Final = 1 << 20
READ_SCOPE: Final = "sync:read"


@dataclass(frozen=True, slots=True)
class DeadLetterReading:
    """Reads dead letters of this node's workspaces."""

    reading: Reading
    retention_us: int
    """After which an acknowledged one goes."""

    async def kept(self, key: WorkspaceKey, dead_letter_id: str) -> KeptDeadLetter:
        """One dead letter that the caller may see. `DeadLetterNotFound`."""
        async with self.reading.snapshot(key) as (view, _):
            kept = await view.dead_letter(dead_letter_id)
            shown = [] if kept is None else await self.shown(view, [kept])
        if not shown:
            raise DeadLetterNotFound(dead_letter=dead_letter_id)
        return shown[0]

    async def shown(self, view: TreeView, kept: Sequence[KeptDeadLetter]) -> list[KeptDeadLetter]:
        """Those that the caller may see: of a path that its rules hide from it, a dead letter tells nothing either.

        One without a path may be about any: it is shown to whom the rules of the root let pass. (A scope with a path
        grants no dead letter at all.)
        """
        sight = await ReadAccess.current(READ_SCOPE).sight(view)
        if sight.sees_all:
            return list(kept)
        sees_root = (await sight.standing_in(ROOT)).may_pass
        files = await view.files([each.path for each in kept])
        pairs = zip(kept, files, strict=True)
        return [each for each, file in pairs if (sees_root if not each.path else await sight.allows(each.path, file))]

    def fill(self, into: dead_letter_pb2.DeadLetter, workspace_id: str, kept: KeptDeadLetter) -> None:
        """Its description, with when it goes."""
        fill_dead_letter(into, workspace_id, kept)
        if kept.acknowledgement is not None and kept.state == dead_letter_pb2.DEAD_LETTER_STATE_ACKNOWLEDGED:
            set_us(into.expire_time, kept.row.created_us + self.retention_us)

    async def describe(self, key: WorkspaceKey, dead_letter_id: str) -> dead_letter_pb2.GetDeadLetterResponse:
        """Description, headers and change."""
        kept = await self.kept(key, dead_letter_id)
        answer = dead_letter_pb2.GetDeadLetterResponse()
        self.fill(answer.dead_letter, key.workspace_id, kept)
        answer.headers.update(kept.row.raw.headers)
        if kept.row.stage == STAGE_APPLY:
            member = shard_pb2.FoldMember.FromString(await _whole(self.reading.engine, key, kept))
            _fill_change(answer.change, member)
        return answer

    async def read(
        self, key: WorkspaceKey, dead_letter_id: str
    ) -> AsyncGenerator[dead_letter_pb2.ReadDeadLetterResponse, None]:
        """A head, then at least one chunk."""
        kept = await self.kept(key, dead_letter_id)
        # Whole in memory, as it was when it came: at most one body or content, and its hash comes first.
        body = await _whole(self.reading.engine, key, kept)
        first = dead_letter_pb2.ReadDeadLetterResponse()
        head = first.head
        self.fill(head.dead_letter, key.workspace_id, kept)
        head.headers.update(kept.row.raw.headers)
        if kept.row.stage == STAGE_APPLY:
            member = shard_pb2.FoldMember.FromString(body)
            body = member.content
            _fill_change(head.change, member)
        head.dead_letter.raw_size_bytes = len(body)
        head.content_sha256 = hashlib.sha256(body).digest()
        yield first
        for start in range(0, len(body) or 1, CHUNK_BYTES_MAX):
            piece = body[start : start + CHUNK_BYTES_MAX]
            last = start + CHUNK_BYTES_MAX >= len(body)
            yield dead_letter_pb2.ReadDeadLetterResponse(chunk=types_pb2.ContentChunk(data=piece, last=last))


async def _whole(engine: Engine, key: WorkspaceKey, kept: KeptDeadLetter) -> bytes:
    if not kept.content_id:
        return b""
    pieces: list[bytes] = []
    offset = 0
    while True:
        piece = await engine.content_chunk(key, kept.content_id, offset, CHUNK_BYTES_MAX)
        if piece is None:
            raise DataCorrupted(what=f"what is kept of dead letter {kept.row.dead_letter_id}")
        pieces.append(piece)
        offset += len(piece)
        if len(piece) < CHUNK_BYTES_MAX:
            return b"".join(pieces)


def _fill_change(into: types_pb2.FileChange, member: shard_pb2.FoldMember) -> None:
    """The change without its content."""
    kind = int(member.kind)
    if kind in CHANGE_KINDS:
        into.kind = kind  # type: ignore[assignment]  # the numbers of the two enums agree
    into.path = member.path
    into.provider_object_id = member.provider_object_id
    if member.HasField("occurred_unix_us"):
        set_us(into.occurred_at, member.occurred_unix_us)
    into.content_type = member.content_type
    if member.HasField("semantics"):
        into.semantics.CopyFrom(member.semantics)
    into.operation_id = member.operation_id
