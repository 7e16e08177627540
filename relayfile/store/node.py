"""One store node: its engine, its shards, and the one pipeline that writes them.

Owns what the servicers share, and the background work of a node. Refuses to know any wire format.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import msgspec
from prometheus_client import CollectorRegistry

from relayfile.clock import Clock
from relayfile.store.activity import NodeActivity
from relayfile.store.buckets import BucketBuilder
from relayfile.store.commit import CommitLimits, Committer
from relayfile.store.cursor_holds import CursorHolds
from relayfile.store.deletion import WorkspaceDeletions
from relayfile.store.engine import Engine
from relayfile.store.entry_kinds import ApplyFolds, CreateWorkspaces, NewWorkspace, PlanContext
from relayfile.store.letters.dead_letters import DeadLetters
from relayfile.store.letters.replayer import ReplayPolicy
from relayfile.store.once import Asked, Once, RequestMark
from relayfile.store.operations.desk import OperationDesk
from relayfile.store.operations.feed import OperationFeed
from relayfile.store.ownership import Ownership, StaticPlacement
from relayfile.store.plan.limits import PlanLimits
from relayfile.store.plan.rows import WorkspaceRow
from relayfile.store.retention import Retention
from relayfile.store.routes import RouteWriter
from relayfile.store.streams.pausing import ChangePauses, PauseNews
from relayfile.store.streams.sessions import Reports
from relayfile.store.turns import LoopTurns
from relayfile.store.watch import RevisionFeed
from relayfile.store.writes import FileMutations, FileWriter
from relayfile.telemetry import StoreInstruments, Tracing, WritebackInstruments


@dataclass(frozen=True, slots=True)
class NodePolicy:
    """The settings that decide how the node behaves."""

    commit: CommitLimits
    plan: PlanLimits
    creates_workspaces: bool
    """Whether the first delivery to an unknown workspace makes it."""
    expiry_interval_s: float
    replay: ReplayPolicy = ReplayPolicy()
    tombstone_retention_us: int = 30 * 86_400 * 1_000_000
    writeback_providers: tuple[str, ...] = ()
    """Those whose directories carry edits back even before a first delivery."""


class Node:
    """A node that owns its shards. Made by `start`; `run` must be running for anything to be written."""

    def __init__(
        self,
        engine: Engine,
        ownership: Ownership,
        clock: Clock,
        new_id: Callable[[], str],
        instruments: StoreInstruments,
        policy: NodePolicy,
        tracing: Tracing | None = None,
        writeback: WritebackInstruments | None = None,
    ) -> None:
        self.engine = engine
        self.ownership = ownership
        self.clock = clock
        self.instruments = instruments
        self.policy = policy
        self.writeback = writeback or WritebackInstruments.declare(CollectorRegistry())
        self.activity = NodeActivity(clock, instruments, self.writeback)
        self.feed = RevisionFeed()
        self.feed.on_commit = self.activity.committed
        self.holds = CursorHolds(clock)
        self.turns = LoopTurns(clock)
        self._retention = Retention(engine, self.holds, clock, self.turns, policy.expiry_interval_s)
        self.committer = Committer(engine, ownership, self.feed, clock, instruments, policy.commit, tracing)
        self.committer.on_submit = self.turns.called
        context = PlanContext(engine, clock, new_id)
        self.apply_folds = ApplyFolds(context, policy.plan, creates_workspaces=policy.creates_workspaces)
        self.change_pauses = Once(context, ChangePauses(context), encode=lambda _: b"", decode=lambda _: None)
        self.pauses = PauseNews(engine)
        self.reports = Reports()
        self.deletions = WorkspaceDeletions(
            context, self.committer, ownership, self.feed, self.pauses, policy.tombstone_retention_us
        )
        replays_total = instruments.replays_total
        self.dead_letters = DeadLetters(
            context, self.apply_folds, self.committer, ownership, policy.replay, replays_total
        )
        operation_feed = OperationFeed()
        self.feed.on_operations = operation_feed.tell
        providers = frozenset(policy.writeback_providers)
        self.operations = OperationDesk(context, policy.plan, self.committer, ownership, operation_feed, providers)
        mutations = FileMutations(
            context,
            policy.plan,
            creates_workspaces=policy.creates_workspaces,
            edits_hook=self.operations.edits_hook,
        )
        self.files = FileWriter(context, mutations, self.committer, ownership)
        self.routes = RouteWriter(context, policy.plan, self.committer, ownership, self.dead_letters)
        self._create_workspaces = Once(
            context,
            CreateWorkspaces(context),
            encode=msgspec.json.encode,
            decode=msgspec.json.Decoder(WorkspaceRow).decode,
        )

    @classmethod
    async def start(
        cls,
        engine: Engine,
        placement: StaticPlacement,
        clock: Clock,
        new_id: Callable[[], str],
        instruments: StoreInstruments,
        policy: NodePolicy,
        tracing: Tracing | None = None,
        writeback: WritebackInstruments | None = None,
    ) -> "Node":
        """Acquire the node's shards; whatever an earlier process of it still sends is fenced from then on."""
        ownership = await Ownership.acquire(engine, placement)
        return cls(engine, ownership, clock, new_id, instruments, policy, tracing, writeback)

    async def run(self) -> None:
        """Write, replay, and remove what expired, until cancelled. Raises `StorageFailed` when the process must end."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.committer.run(), name="store-committer")
            tasks.create_task(self._retention.run(), name="store-expiry")
            tasks.create_task(self.dead_letters.run(), name="store-replays")
            tasks.create_task(self.operations.run(), name="store-operations")
            tasks.create_task(BucketBuilder(self.engine, self.committer).run(), name="store-buckets")

    async def create_workspace(
        self, workspace_id: str, files_max: int = 0, total_bytes_max: int = 0, mark: RequestMark | None = None
    ) -> WorkspaceRow:
        """Make an empty workspace; durable when it returns. `WorkspaceAlreadyExists`; `NotOwner` at the wrong node.

        A repeat with the same `mark` gets the same row; `RequestIdReused`: its id stands for another request.
        """
        key = self.ownership.local_key(workspace_id)
        mutation = Asked(NewWorkspace(files_max, total_bytes_max), mark)
        return await self.committer.submit(key, self._create_workspaces, mutation, change_count=1, byte_count=0)
