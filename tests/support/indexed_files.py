"""Files with semantics, written into a running node as providers' changes, with an oracle of what a query finds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from relayfile.model import MemberKind, Semantics
from relayfile.paths import contains
from relayfile.store.engine import WorkspaceKey
from relayfile.store.node import Node
from relayfile.store.plan.entry import Fold
from relayfile.v1 import file_pb2
from tests.fakes.model_store import Deliveries


@dataclass(frozen=True, slots=True)
class Known:
    """What a query goes by."""

    provider: str
    semantics: Semantics
    object_id: str


@dataclass(slots=True)
class IndexedFiles:
    """One workspace of a node."""

    node: Node
    workspace_id: str
    files: dict[str, Known] = field(default_factory=dict)
    last_number: int = 0
    """Of the delivery that was made last."""

    @property
    def key(self) -> WorkspaceKey:
        return self.node.ownership.local_key(self.workspace_id)

    def _next_number(self) -> int:
        self.last_number += 1
        return self.last_number

    async def put(self, provider: str, files: Mapping[str, Semantics]) -> None:
        """Upserts, in one entry; they replace what other providers have at these paths."""
        deliveries = Deliveries(provider)
        folds = []
        for path, semantics in files.items():
            number = self._next_number()
            there = self.files.get(path)
            object_id = there.object_id if there is not None and there.provider == provider else f"file/{number}"
            # A change without semantics keeps those of the file at its path.
            kept = semantics if semantics or there is None else there.semantics
            known = Known(provider, kept, object_id)
            folds.append(self._fold(deliveries, number, known, MemberKind.UPSERT, path, semantics))
            self.files[path] = known
        await self._submit(folds)

    async def delete(self, paths: Sequence[str]) -> None:
        """Deletes of the objects, in one entry."""
        folds = []
        for path in paths:
            known = self.files.pop(path)
            number = self._next_number()
            folds.append(self._fold(Deliveries(known.provider), number, known, MemberKind.DELETE, path))
        await self._submit(folds)

    async def move(self, moves: Mapping[str, str]) -> None:
        """Upserts of objects at new paths, in one entry; they keep their semantics."""
        folds = []
        for path, to_path in moves.items():
            known = self.files.pop(path)
            number = self._next_number()
            folds.append(self._fold(Deliveries(known.provider), number, known, MemberKind.UPSERT, to_path))
            self.files[to_path] = known
        await self._submit(folds)

    @staticmethod
    def _fold(
        deliveries: Deliveries,
        number: int,
        known: Known,
        kind: MemberKind,
        path: str,
        semantics: Semantics | None = None,
    ) -> Fold:
        member = deliveries.member(
            kind, path, b"%d" % number if kind is MemberKind.UPSERT else b"", semantics=semantics,
            object_id=known.object_id, envelope_id=f"e{number}", delivery_id=f"d{number}", received_us=number,
        )  # fmt: skip
        return deliveries.fold(known.object_id, [member])

    async def _submit(self, folds: Sequence[Fold]) -> None:
        byte_count = 1_000 * len(folds)
        kind = self.node.apply_folds
        for start in range(0, len(folds), 400):
            some = tuple(folds[start : start + 400])
            await self.node.committer.submit(self.key, kind, some, change_count=len(some), byte_count=byte_count)

    def found(self, request: file_pb2.QueryFilesRequest) -> list[str]:
        """Paths that satisfy the request, by looking at all."""
        return sorted(
            path
            for path, known in self.files.items()
            if contains(request.path_prefix or "/", path)
            and path != request.path_prefix
            and request.provider in ("", known.provider)
            and (not request.relation or request.relation in known.semantics.relations)
            and (not request.permission or request.permission in known.semantics.permissions)
            and (not request.comment or request.comment in known.semantics.comments)
            and request.properties.items() <= known.semantics.properties.items()
        )
