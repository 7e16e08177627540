"""Trees written straight into an engine, with an oracle of what they hold: for tests of what reads them.

It makes the plans that a planner would make for plain files, and nothing else: no objects, no deliveries.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from relayfile.clock import Clock
from relayfile.model import NO_SEMANTICS, EventType, Origin
from relayfile.paths import ancestors, contains, parent
from relayfile.store.engine import Engine, Fence, PlannedEntry
from relayfile.store.once import RequestMark
from relayfile.store.ownership import Local, Ownership
from relayfile.store.plan.digest import file_term
from relayfile.store.plan.result import FilePut, Plan
from relayfile.store.plan.rows import DirectoryRow, EventRow, FileRow, WorkspaceRow
from relayfile.store.watch import RevisionFeed

GROUP_FILES = 2_000
_EMPTY = b"\0" * 32
_MODULUS = 1 << 256


@dataclass(frozen=True, slots=True)
class Held:
    """What a test knows of a file."""

    content: bytes
    revision: int
    content_id: int = 0

    @property
    def sha256(self) -> bytes:
        return hashlib.sha256(self.content).digest()


@dataclass(slots=True)
class Tree:
    """One workspace as the test wrote it."""

    workspace: WorkspaceRow
    files: dict[str, Held] = field(default_factory=dict)
    directories: dict[str, DirectoryRow] = field(default_factory=dict)
    keep_content: bool = True

    @property
    def revision(self) -> int:
        return self.workspace.revision

    def below(self, directory: str) -> list[str]:
        """Paths of its files, in order."""
        return sorted(path for path in self.files if contains(directory, path) and path != directory)

    def digest(self, directory: str) -> int:
        return sum(file_term(path, self.files[path].sha256) for path in self.below(directory)) % _MODULUS


class TreeWriter:
    """Commits files to workspaces of one node, and tells its feed."""

    def __init__(self, engine: Engine, ownership: Ownership, feed: RevisionFeed, clock: Clock) -> None:
        self._engine = engine
        self._ownership = ownership
        self._feed = feed
        self._clock = clock
        self.trees: dict[str, Tree] = {}

    async def create_workspace(
        self, workspace_id: str, files_max: int = 0, total_bytes_max: int = 0, mark: RequestMark | None = None
    ) -> WorkspaceRow:
        history_id = hashlib.sha256(workspace_id.encode()).hexdigest()[:32]
        row = WorkspaceRow(history_id, 0, self._clock.now_us(), None, None, files_max, total_bytes_max)
        await self._commit(Plan(workspace_id, row, workspace_changed=True))
        self.trees[workspace_id] = Tree(row)
        return row

    async def put(self, workspace_id: str, contents: Mapping[str, bytes]) -> Tree:
        """Write files, one revision each, a few thousand to a commit."""
        items = list(contents.items())
        for start in range(0, len(items), GROUP_FILES):
            await self._put(workspace_id, items[start : start + GROUP_FILES])
        return self.trees[workspace_id]

    async def delete(self, workspace_id: str, paths: Iterable[str]) -> Tree:
        """Delete files in one commit."""
        tree = self.trees[workspace_id]
        plan = Plan(workspace_id, None, workspace_changed=True)
        revision = tree.revision
        for path in paths:
            revision += 1
            held = tree.files.pop(path)
            plan.files_deleted.add(path)
            plan.contents_released.append(await self._content_id(workspace_id, path))
            self._count(tree, plan, path, revision, held, None)
            plan.events.append(self._event(revision, EventType.FILE_DELETED, path, None))
        return await self._finish(tree, plan, revision)

    async def _put(self, workspace_id: str, items: Sequence[tuple[str, bytes]]) -> None:
        tree = self.trees[workspace_id]
        plan = Plan(workspace_id, None, workspace_changed=True)
        revision = tree.revision
        now_us = self._clock.now_us()
        for path, content in items:
            revision += 1
            held = Held(content if tree.keep_content else b"", revision)
            sha256 = hashlib.sha256(content).digest()
            before = tree.files.get(path)
            if before is not None:
                plan.contents_released.append(await self._content_id(workspace_id, path))
            row = FileRow(
                path, revision, 0, sha256, len(content), "application/json", "github", f"o:issue/{revision}",
                now_us, Origin.PROVIDER, NO_SEMANTICS,
            )  # fmt: skip
            plan.files_put[path] = FilePut(row, content)
            self._count(tree, plan, path, revision, before, Held(content, revision))
            tree.files[path] = held
            kind = EventType.FILE_CREATED if before is None else EventType.FILE_UPDATED
            plan.events.append(self._event(revision, kind, path, Held(content, revision)))
        await self._finish(tree, plan, revision)

    async def _finish(self, tree: Tree, plan: Plan, revision: int) -> Tree:
        tree.workspace = tree.workspace._replace(revision=revision, modified_us=self._clock.now_us())
        plan.workspace = tree.workspace
        await self._commit(plan)
        self._feed.tell(plan.workspace_id, revision)
        return tree

    async def _commit(self, plan: Plan) -> None:
        owner = self._ownership.owner_of(plan.workspace_id)
        assert isinstance(owner, Local), owner
        entry = PlannedEntry(owner.key, plan, self._clock.now_us())
        fenced = await self._engine.commit([Fence(owner.key.shard_id, owner.epoch)], [entry])
        assert not fenced, fenced

    async def _content_id(self, workspace_id: str, path: str) -> int:
        async with self._engine.view(self._ownership.local_key(workspace_id)) as view:
            row = await view.file(path)
        assert row is not None, path
        return row.content_id

    def _count(self, tree: Tree, plan: Plan, path: str, revision: int, before: Held | None, after: Held | None) -> None:
        files = (after is not None) - (before is not None)
        size = (0 if after is None else len(after.content)) - (0 if before is None else len(before.content))
        digest = (0 if after is None else file_term(path, after.sha256)) - (
            0 if before is None else file_term(path, before.sha256)
        )
        entries = files
        for directory in ancestors(path):
            row = tree.directories.get(directory) or DirectoryRow(directory, 0, 0, 0, 0, 0, 0)
            was_there = row.file_count > 0
            row = row._replace(
                file_count=row.file_count + files,
                total_bytes=row.total_bytes + size,
                digest=(row.digest + digest) % _MODULUS,
                entry_count=row.entry_count + entries,
                revision=revision,
            )
            if row.file_count or directory == "/":
                plan.directories_put[directory] = tree.directories[directory] = row
                plan.directories_deleted.discard(directory)
            else:
                tree.directories.pop(directory, None)
                plan.directories_put.pop(directory, None)
                plan.directories_deleted.add(directory)
            entries = (row.file_count > 0) - was_there
            assert directory == "/" or parent(directory)

    def _event(self, revision: int, kind: EventType, path: str, held: Held | None) -> EventRow:
        return EventRow(
            revision, kind, path, "", "", _EMPTY if held is None else held.sha256,
            0 if held is None else len(held.content), Origin.PROVIDER, "github", f"c-{revision}", "",
            self._clock.now_us(),
        )  # fmt: skip
