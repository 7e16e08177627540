"""The storage seam (D10): what the store asks of an engine, and what its read servicers may read.

Owns the Protocols and the values that cross them. An engine keeps rows and content, answers reads from short snapshots,
and commits groups of plans in one fenced transaction each. It refuses to decide anything: what a change does is the
planner's business, who may see it the servicers'.

Reads are `async` because an engine may sit behind a network; the SQLite engine answers inline and never suspends. A
view is one snapshot: take it, read, leave it. Never hold one across a wait for a peer, or the write-ahead log grows.
"""

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple, Protocol

from relayfile.model import Outcome
from relayfile.store.operation_view import OperationView
from relayfile.store.plan.buckets import BucketRow
from relayfile.store.plan.entry import Entry
from relayfile.store.plan.file_index import Term
from relayfile.store.plan.letters import LetterRef, LetterState
from relayfile.store.plan.result import Plan
from relayfile.store.plan.rows import (
    AdminActionRow,
    DeadLetterRow,
    DirectoryRow,
    EventRow,
    FileRow,
    PauseRow,
    RequestKey,
    RequestRow,
    WorkspaceRow,
)
from relayfile.store.plan.slice import Needs, Slice


class WorkspaceKey(NamedTuple):
    """Leads every key of a workspace's rows."""

    shard_id: int
    workspace_id: str


NOTHING_HELD: Mapping[WorkspaceKey, int] = MappingProxyType({})


class Fence(NamedTuple):
    """A shard and the epoch at which the writer owns it (D11)."""

    shard_id: int
    epoch: int


class PlannedEntry(NamedTuple):
    """One workspace's entry, ready to commit. Each workspace at most once in a group."""

    key: WorkspaceKey
    plan: Plan
    planned_us: int


class ShardRow(NamedTuple):
    """Who owns a shard, as the engine has it."""

    shard_id: int
    epoch: int
    owner: int
    """Index of the node."""
    address: str


class Sweep(NamedTuple):
    """What one step of removing did."""

    removed_count: int
    is_complete: bool
    """Everything was looked at since the last complete one, nothing that expired is left and no room is to be given
    back: rest for a while."""


@dataclass(frozen=True, slots=True)
class ProviderOutcomes:
    """One provider's counters in a workspace, or summed over the node."""

    provider: str
    counts: dict[Outcome, int]
    failure_reasons: dict[str, int]
    """Dead letters that are kept, by reason."""
    last_received_us: int | None
    last_applied_us: int | None
    """When a change of it last made a revision."""
    paused: bool = False
    """By itself, or with its workspace; never set in sums over the node."""


class ProviderWork(NamedTuple):
    """What is open of one provider in a workspace, each counted up to 10,000."""

    stale_file_count: int = 0
    """Files whose content is older than a signal says."""
    unfinished_operation_count: int = 0


class Acknowledgement(NamedTuple):
    """Who has seen a dead letter and leaves it."""

    time_us: int
    actor: str
    reason: str


class LetterTotal(NamedTuple):
    """Dead letters of one provider in one state."""

    provider: str
    state: LetterState
    letter_count: int
    body_bytes: int


@dataclass(frozen=True, slots=True)
class KeptDeadLetter:
    """A dead letter as it is kept. `row.raw.body` is empty: content `content_id` holds it, or, of stage `apply`, the
    change as a `FoldMember`. `body_size_bytes` are those of the body, or of the change's content."""

    row: DeadLetterRow
    content_id: int
    """0 when nothing of the body was kept."""
    body_size_bytes: int
    state: int
    """Number of `relayfile.v1.DeadLetterState`."""
    attempt_count: int
    last_attempt_us: int
    path: str
    """Of the change; empty when it has none, or is not read yet."""
    change_kind: int
    """Number of `MemberKind`; 0 for a request."""
    acknowledgement: Acknowledgement | None


@dataclass(frozen=True, slots=True)
class DeadLetterFilter:
    """Which dead letters; empty fields select all."""

    provider: str = ""
    reason: str = ""
    stage: str = ""
    state: int = 0
    received_from_us: int | None = None
    received_before_us: int | None = None
    tenant: str = ""
    """Value of the kept header `x-relayfile-tenant`; only for `letters_after`."""


@dataclass(frozen=True, slots=True)
class AdminActionFilter:
    """Which administrative actions; empty fields select all."""

    actor: str = ""
    method: str = ""
    from_us: int | None = None
    before_us: int | None = None


class TreeView(Protocol):
    """Files, directories and contents in one snapshot of one workspace. Paths are normalised."""

    async def workspace(self) -> WorkspaceRow | None:
        """The workspace's own row; None when it never existed. A tombstone has `deleted_us`."""
        ...

    async def file(self, path: str) -> FileRow | None:
        """One file."""
        ...

    async def files(self, paths: Sequence[str]) -> list[FileRow | None]:
        """Many files, in order of asking."""
        ...

    async def list_files(self, directory: str, after: str, limit: int) -> list[FileRow]:
        """Files strictly below `directory`, by path, that come after the path `after` (empty: from the start)."""
        ...

    async def list_level(self, directory: str, depth: int, after: str, limit: int) -> list[FileRow | DirectoryRow]:
        """Files and directories at most `depth` levels below `directory` (1: its direct entries), by path, after
        `after`. Costs one seek for each directory on the last level, however much is below it."""
        ...

    async def list_buckets(
        self, directory: str, buckets: AbstractSet[int], after: str, look_at_max: int
    ) -> tuple[list[FileRow | DirectoryRow], str]:
        """Direct entries whose bucket is one of `buckets`, of those after `after`, by path; and up to which path was
        looked, empty when nothing comes after it. Of other entries only the name is read."""
        ...

    async def directory(self, path: str) -> DirectoryRow | None:
        """One directory; None when no file is below it."""
        ...

    async def buckets(self, path: str) -> list[BucketRow]:
        """The sums of a directory's entries by bucket, those that ever held something; complete only when its row says
        so (`buckets_to`)."""
        ...

    async def contents(self, content_ids: Sequence[int]) -> dict[int, bytes]:
        """The bytes of contents. The caller bounds their sum by the `size_bytes` of the file rows."""
        ...


class WorkspaceFilter(NamedTuple):
    """Which workspaces of a list."""

    prefix: str = ""
    deleted: bool = False
    """Tombstones too."""
    system: bool = False
    """The system's own too, whose names start with `_`."""


class ListedWorkspace(NamedTuple):
    """A workspace in a list, as of one commit."""

    key: WorkspaceKey
    row: WorkspaceRow
    root: DirectoryRow | None
    oldest_event_revision: int | None


class TermPath(NamedTuple):
    """A file that has one term of several."""

    path: str
    has_others: bool
    """Whether it has all the others too."""


class ProviderFiles(NamedTuple):
    """Part of a walk through the files of one provider."""

    files: list[FileRow]
    looked_at_to: str
    """Go on after this path."""
    is_complete: bool
    """There are no more after it."""


class FileIndexView(Protocol):
    """How files are found by what is known of them, in the same snapshot. A term is the beginning of a value: look at
    the file before you believe. All are strictly below `directory` and come after the path `after`, by path."""

    async def term_count(self, term: Term, directory: str, at_most: int) -> int:
        """How many files have the term, as far as `at_most`."""
        ...

    async def term_paths(
        self, term: Term, others: Sequence[Term], directory: str, after: str, limit: int
    ) -> list[TermPath]:
        """The next `limit` files with `term`."""
        ...

    async def provider_files(self, provider: str, directory: str, after: str, look_at_max: int) -> ProviderFiles:
        """Files of a provider, among the next `look_at_max` of the directories that hold any."""
        ...


class EventView(Protocol):
    """The event log in the same snapshot."""

    async def events_after(self, revision: int, limit: int) -> list[EventRow]:
        """Events with a greater revision, ascending."""
        ...

    async def oldest_event_revision(self) -> int | None:
        """The oldest retained event; None when none is."""
        ...


class OutcomeView(Protocol):
    """Counters and dead letters in the same snapshot."""

    async def outcomes(self) -> list[ProviderOutcomes]:
        """By provider."""
        ...

    async def provider_work(self) -> dict[str, ProviderWork]:
        """By provider, those of which anything is open."""
        ...

    async def dead_letters(self, chosen: DeadLetterFilter, before_id: str, limit: int) -> list[KeptDeadLetter]:
        """Newest first, older than the id `before_id` (empty: from the newest)."""
        ...

    async def dead_letter(self, dead_letter_id: str) -> KeptDeadLetter | None:
        """One dead letter."""
        ...

    async def letter_totals(self) -> list[LetterTotal]:
        """How many dead letters the workspace has, by provider and state."""
        ...

    async def letters_after(
        self, chosen: DeadLetterFilter, after_id: str, looked_at_max: int
    ) -> tuple[list[LetterRef], str]:
        """(the chosen among the next `looked_at_max` dead letters, oldest first; the id to go on after, empty at the
        end)."""
        ...

    async def replaying_letters(self, stage: str, limit: int) -> list[LetterRef]:
        """Dead letters that are queued for another try, oldest first."""
        ...

    async def letter_refs(self, dead_letter_ids: Sequence[str]) -> dict[str, LetterRef]:
        """Those that exist, by id."""
        ...


class OrderView(Protocol):
    """What was asked for under an id, and what was ordered, in the same snapshot."""

    async def requests(self, keys: Sequence[RequestKey]) -> dict[RequestKey, RequestRow]:
        """Those of the requests that were answered, and not longer ago than they are kept."""
        ...

    async def admin_actions(self, chosen: AdminActionFilter, before_id: str, limit: int) -> list[AdminActionRow]:
        """Newest first, older than the id `before_id` (empty: from the newest)."""
        ...


class PauseView(Protocol):
    """What is paused, in the same snapshot."""

    async def pauses(self) -> list[PauseRow]:
        """By provider; that of the whole workspace first."""
        ...


class WorkspaceView(TreeView, FileIndexView, EventView, OutcomeView, OrderView, PauseView, Protocol):
    """Everything that servicers read of one workspace, in one snapshot."""

    def operations(self) -> OperationView:
        """Its write-back operations."""
        ...


class Engine(Protocol):
    """One node's storage."""

    async def load(self, key: WorkspaceKey, entry: Entry) -> Slice:
        """The rows that planning `entry` needs, all of one snapshot that includes every finished commit."""
        ...

    async def load_rounds(self, key: WorkspaceKey, first: Needs, more: Callable[[Slice], Needs]) -> Slice:
        """As `load`, for other plans than of folds: `first`, then what `more` asks for until that is empty."""
        ...

    async def commit(self, fences: Sequence[Fence], entries: Sequence[PlannedEntry]) -> frozenset[int]:
        """Write the entries in one transaction; returns when it is durable. `fences` holds each shard once.

        Returns the shards whose epoch did not match: nothing of their entries was written. Raises `StorageFailed`
        when nothing of the group was written or it is not known: then never call it again.
        """
        ...

    def view(self, key: WorkspaceKey) -> AbstractAsyncContextManager[WorkspaceView]:
        """A snapshot that includes every finished commit."""
        ...

    async def content_chunk(self, key: WorkspaceKey, content_id: int, offset: int, length: int) -> bytes | None:
        """A piece of a content, outside of any snapshot. Replaced content stays readable for a minute, one of at most
        64 KiB for five seconds; then None."""
        ...

    async def node_outcomes(self) -> list[ProviderOutcomes]:
        """The counters of all workspaces of this node, summed by provider: O(shards and providers), whatever the number
        of workspaces."""
        ...

    async def pauses(self) -> list[tuple[str, str]]:
        """(workspace, provider) of every pause of this node's shards, those of a workspace together."""
        ...

    async def admin_actions(
        self, chosen: AdminActionFilter, before_id: str, limit: int
    ) -> list[tuple[str, AdminActionRow]]:
        """(workspace, action) of all workspaces of this node, newest first, older than the id `before_id` (empty: from
        the newest)."""
        ...

    async def replaying_workspaces(self) -> list[WorkspaceKey]:
        """This node's workspaces with dead letters that are queued for another try."""
        ...

    async def workspaces_at_work(self) -> list[WorkspaceKey]:
        """This node's workspaces in which an operation waits or is claimed, or a change is held."""
        ...

    async def workspaces(self, chosen: WorkspaceFilter, after: str, limit: int) -> list[ListedWorkspace]:
        """This node's workspaces by name, after the name `after`."""
        ...

    async def bucket_builds(self, limit: int) -> list[tuple[WorkspaceKey, str]]:
        """(workspace, directory) of some whose buckets are being built."""
        ...

    async def acquire_shards(self, shard_ids: Sequence[int], owner: int, address: str) -> list[ShardRow]:
        """Own these shards from now on: each one's epoch grows by one. Durable when it returns.

        `StartRefused` when it cannot be written, on a full disk say."""
        ...

    async def remove_expired(self, now_us: int, limit: int, held: Mapping[WorkspaceKey, int] = NOTHING_HELD) -> Sweep:
        """Delete at most about `limit` rows that nothing may ask for any more: contents that were released a minute
        ago, deliveries, request ids, events, administrative actions, ended operations and acknowledged dead letters
        beyond their retention. One transaction and a bounded step; call again until the sweep is complete. `held`: the
        oldest cursor of a workspace that is still read from; events after it stay up to twice as long, and twice as
        many."""
        ...

    async def close(self) -> None:
        """Finish the commit in flight and let go of the files."""
        ...
