"""The commit pipeline (D7): queued mutations become entries, entries become plans, plans share a transaction.

Owns when things are planned and committed, and who is told. A workspace has at most one uncommitted entry: what
arrives meanwhile waits and is planned on its result. While one group is being written, the next group's entries, of
other workspaces, are planned. Nothing is answered before the commit. Refuses to know what a mutation means: its kind
plans it.

Concurrency: everything runs on one event loop; `run` is the only one that plans and commits.
"""

import asyncio
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol, TypeVar

from relayfile import faults
from relayfile.clock import Clock
from relayfile.errors import Draining, StorageFailed
from relayfile.store.commit_span import commit_span
from relayfile.store.company import LARGE_ENTRY_CHANGES, Company, is_enough
from relayfile.store.engine import Engine, PlannedEntry, WorkspaceKey
from relayfile.store.ownership import Ownership
from relayfile.store.plan.result import Plan
from relayfile.store.queues import QueueBounds, Waiting, WorkspaceQueues
from relayfile.store.watch import RevisionFeed
from relayfile.telemetry import StoreInstruments, Tracing
from relayfile.telemetry.exemplars import observe

Mutation = TypeVar("Mutation")
Answer = TypeVar("Answer")
Mutation_contra = TypeVar("Mutation_contra", contravariant=True)
Answer_co = TypeVar("Answer_co", covariant=True)


class EntryKind(Protocol[Mutation_contra, Answer_co]):
    """Plans mutations of one kind: folds of changes, creations of workspaces, later the writes of agents."""

    async def plan(
        self, key: WorkspaceKey, mutations: Sequence[Mutation_contra]
    ) -> tuple[Plan | None, Sequence[Answer_co | Exception]]:
        """One entry of all `mutations`, in order, on the committed state. An answer each; an exception refuses one.

        None: there is nothing to write, the answers hold as they are. What is raised refuses all of them.
        """
        ...


class Asker(Enum):
    """Who waits for a mutation."""

    CALL = 1
    """A call, which ends with its answer."""
    STREAM = 2
    """A stream, which stays."""
    NODE = 3
    """Nobody outside: the node does it by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitLimits:
    """How much goes into one transaction, and what may wait for one."""

    linger_s: float = 0.005
    """Longest wait for company; only when the group before had some, so that a lone change never waits."""
    group_changes_max: int = 2_000
    group_bytes_max: int = 8 << 20
    entry_changes_max: int = 500
    """Of one workspace at once: bounds how long planning keeps the loop."""
    bounds: QueueBounds = field(default_factory=lambda: QueueBounds(20_000, 64 << 20))


@dataclass(slots=True)
class _Group:
    """Entries that will be committed together, each with the mutations that it answers."""

    entries: list[PlannedEntry] = field(default_factory=list)
    answers: list[list[tuple[Waiting, object]]] = field(default_factory=list)
    change_count: int = 0
    byte_count: int = 0
    is_crowded: bool = False
    """An entry has as many mutations as it may have. Often their callers are many, and company would keep all of them
    waiting; whether more wait is not asked."""

    @property
    def has_company(self) -> bool:
        """Whether it waits for no more."""
        return self.is_crowded or is_enough(self.change_count, len(self.entries))


class Committer:
    """The only writer of this node's workspaces."""

    def __init__(
        self,
        engine: Engine,
        ownership: Ownership,
        feed: RevisionFeed,
        clock: Clock,
        instruments: StoreInstruments,
        limits: CommitLimits,
        tracing: Tracing | None = None,
    ) -> None:
        self._engine = engine
        self._ownership = ownership
        self._feed = feed
        self._clock = clock
        self._instruments = instruments
        self._limits = limits
        self.tracing = tracing or Tracing()
        self._queues = WorkspaceQueues(limits.bounds)
        instruments.queue_changes.set_function(lambda: self._queues.change_count)
        instruments.queue_bytes.set_function(lambda: self._queues.byte_count)
        instruments.queue_limit_bytes.set(limits.bounds.node_bytes_max)
        self._wake = asyncio.Event()
        self._moved = asyncio.Event()
        """Set and cleared whenever something left the queues."""
        self.on_submit: Callable[[], object] = lambda: None
        """Told of every mutation for which somebody outside waits."""
        self._company = Company(limits.entry_changes_max)
        self._has_ended = False

    def submit(
        self,
        key: WorkspaceKey,
        kind: EntryKind[Mutation, Answer],
        mutation: Mutation,
        *,
        change_count: int,
        byte_count: int,
        merge_key: Hashable = None,
        asker: Asker = Asker.CALL,
        traces: Sequence[str] = (),
    ) -> asyncio.Future[Answer]:
        """Queue a mutation; its answer comes when it is durable.

        The future raises `NotOwner`, `Unavailable`, `StorageFailed`, `Draining`, or what its kind refused it with.
        Cancelling it undoes nothing. `NotOwner` and `Overloaded` are raised here and at once.
        """
        if not self._ownership.epoch_of(key.shard_id):
            raise self._ownership.not_owner(key.shard_id)
        if asker is not Asker.NODE:
            self.on_submit()
        if asker is Asker.CALL:
            self._company.called(key, now_s=self._clock.monotonic())
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        waiting = Waiting(kind, mutation, merge_key, change_count, byte_count, answer, traces)
        if self._has_ended:
            _refuse(waiting, Draining())
            return answer
        self._queues.put(key, waiting)
        self._wake.set()
        return answer

    @property
    def is_full(self) -> bool:
        """Whether what waits has reached the node's bound: who can be refused is refused."""
        return self._queues.full

    @property
    def waiting(self) -> tuple[int, int]:
        """(changes, bytes) that wait for a commit."""
        return self._queues.change_count, self._queues.byte_count

    def waiting_of(self, key: WorkspaceKey) -> int:
        """Changes of a workspace that wait for a commit."""
        return self._queues.changes_of(key)

    async def room(self) -> None:
        """Return when what waits is within the node's bound: whoever brings streams of work waits here first."""
        while self._queues.full:
            self._moved.clear()
            await self._moved.wait()

    async def drain(self) -> None:
        """Return when everything queued was committed and answered."""
        while not self._queues.idle:
            self._moved.clear()
            await self._moved.wait()

    async def run(self) -> None:
        """Plan and commit until cancelled. Raises `StorageFailed` when the disk fails: the process must end then."""
        writing: asyncio.Task[None] | None = None
        try:
            async with asyncio.TaskGroup() as tasks:
                while True:
                    group = _Group()
                    try:
                        await self._gather(group, writing)
                    except BaseException:
                        self._refuse_group(group, Draining())
                        raise
                    writing = tasks.create_task(self._write(group), name="store-commit")
                    writing.add_done_callback(lambda _: self._wake.set())
        finally:
            self._has_ended = True
            for waiting in self._queues.clear():
                _refuse(waiting, Draining())
            self._moved.set()

    async def _gather(self, group: _Group, writing: asyncio.Task[None] | None) -> None:
        """Fill the next group until the one before it is durable and nothing ready is left out but large entries."""
        patience: asyncio.TimerHandle | None = None
        patient = self._company.is_busy and self._limits.linger_s > 0

        def lose_patience() -> None:
            nonlocal patient
            patient = False
            self._wake.set()

        def is_due() -> bool:
            return bool(group.entries) and (writing is None or writing.done())

        while True:
            self._wake.clear()
            await self._plan_ready(group, is_due)
            if is_due():
                if not patient or group.has_company or self._queues.has_ready:
                    break
                if patience is None:
                    patience = asyncio.get_running_loop().call_later(self._limits.linger_s, lose_patience)
            await self._wake.wait()
        if patience is not None:
            patience.cancel()
        self._company.written(group.change_count, len(group.entries), is_crowded=group.is_crowded)

    async def _plan_ready(self, group: _Group, is_due: Callable[[], bool]) -> None:
        """Plan ready entries into `group` until it is full, giving the loop a turn after each.

        Of a group that `is_due` to be written, large ones are left out, and planned while it is: what waited for the
        commit before does not wait for them too.
        """
        while self._queues.has_ready and not self._is_full(group):
            if self._queues.ready_changes >= LARGE_ENTRY_CHANGES and is_due():
                break
            key, now_s = self._queues.ready_key, self._clock.monotonic()
            changes_max = self._company.entry_changes_max(
                key, self._queues.ready_changes, joins=bool(group.entries), now_s=now_s
            )
            mutations_max = self._company.entry_mutations_max(key, now_s=now_s)
            key, taken = self._queues.take(changes_max, mutations_max)
            group.is_crowded = group.is_crowded or len(taken) == mutations_max
            await self._plan(group, key, taken)
            await asyncio.sleep(0)

    async def _plan(self, group: _Group, key: WorkspaceKey, taken: list[Waiting]) -> None:
        planned_us = self._clock.now_us()
        try:
            plan, answers = await taken[0].kind.plan(key, [waiting.mutation for waiting in taken])
        except StorageFailed as failure:
            self._refuse_all(key, taken, failure)
            raise
        except asyncio.CancelledError:
            self._refuse_all(key, taken, Draining())
            raise
        except Exception as failure:  # noqa: BLE001 - whoever waits is told, and one poison must not stop the others
            if len(taken) > 1:
                self._queues.put_back(key, taken)
            else:
                self._refuse_all(key, taken, failure)
            return
        answered = list(zip(taken, answers, strict=True))
        if plan is None:
            _answer(answered)
            self._release(key)
            return
        group.entries.append(PlannedEntry(key, plan, planned_us))
        group.answers.append(answered)
        group.change_count += sum(waiting.change_count for waiting in taken)
        group.byte_count += sum(waiting.byte_count for waiting in taken)

    def _is_full(self, group: _Group) -> bool:
        return group.change_count >= self._limits.group_changes_max or group.byte_count >= self._limits.group_bytes_max

    async def _write(self, group: _Group) -> None:
        """Commit a group. When it cannot be written as a whole, each entry by itself: one of them may be the fault."""
        try:
            fenced = await self._commit(group)
        except StorageFailed as failure:
            self._refuse_group(group, failure)
            raise
        except asyncio.CancelledError:
            self._refuse_group(group, Draining())
            raise
        except Exception as failure:  # noqa: BLE001 - as above; the waiting ones are told
            if len(group.entries) == 1:
                self._refuse_group(group, failure)
            else:
                await self._write_one_by_one(group)
            return
        self._instruments.commit_changes.observe(group.change_count)
        for entry, answered in zip(group.entries, group.answers, strict=True):
            self._finish(entry, answered, fenced)

    async def _write_one_by_one(self, group: _Group) -> None:
        left = list(zip(group.entries, group.answers, strict=True))
        try:
            while left:
                entry, answered = left.pop(0)
                await self._write(_Group([entry], [answered], sum(waiting.change_count for waiting, _ in answered)))
        except BaseException:
            for entry, answered in left:
                self._refuse_all(entry.key, [waiting for waiting, _ in answered], Draining())
            raise

    async def _commit(self, group: _Group) -> frozenset[int]:
        fences = self._ownership.fences({entry.key.shard_id for entry in group.entries})
        started = self._clock.monotonic()
        with commit_span(self.tracing, group.entries, group.answers, group.change_count) as span:
            fenced = await self._engine.commit(fences, group.entries)
        observe(self._instruments.commit_seconds, self._clock.monotonic() - started, span.traceparent)
        self._instruments.commits_total.inc()
        faults.point("store.commit.after_commit_before_ack")
        return fenced

    def _finish(self, entry: PlannedEntry, answered: list[tuple[Waiting, object]], fenced: frozenset[int]) -> None:
        if entry.key.shard_id in fenced:
            self._instruments.fenced_total.inc()
            refusal = self._ownership.not_owner(entry.key.shard_id)
            self._refuse_all(entry.key, [waiting for waiting, _ in answered], refusal)
            return
        plan = entry.plan
        for (_, outcome), number in plan.outcome_counts.items():
            if number > 0:
                self._instruments.outcomes_total.labels(outcome.name.lower()).inc(number)
        if plan.events and plan.workspace is not None:
            self._instruments.revisions_total.inc(len(plan.events))
            self._feed.tell(entry.key.workspace_id, plan.workspace.revision)
        if plan.operations is not None:
            self._feed.on_operations(entry.key.workspace_id)
        taken = [waiting for waiting, _ in answered]
        self._feed.on_commit(entry, sum(each.change_count for each in taken), sum(each.byte_count for each in taken))
        _answer(answered)
        if self._company.rests(entry.key, len(taken), now_s=self._clock.monotonic()):
            self._rest(entry.key)
        else:
            self._release(entry.key)

    def _rest(self, key: WorkspaceKey) -> None:
        left_s = self._company.rest_s(key, now_s=self._clock.monotonic())
        if left_s:
            asyncio.get_running_loop().call_later(left_s, self._rest, key)
        else:
            self._release(key)

    def _refuse_group(self, group: _Group, failure: Exception) -> None:
        for entry, answered in zip(group.entries, group.answers, strict=True):
            self._refuse_all(entry.key, [waiting for waiting, _ in answered], failure)

    def _refuse_all(self, key: WorkspaceKey, taken: Sequence[Waiting], failure: Exception) -> None:
        for waiting in taken:
            _refuse(waiting, failure)
        self._release(key)

    def _release(self, key: WorkspaceKey) -> None:
        self._queues.release(key)
        self._wake.set()
        self._moved.set()


def _answer(answered: Sequence[tuple[Waiting, object]]) -> None:
    for waiting, answer in answered:
        if isinstance(answer, Exception):
            _refuse(waiting, answer)
        elif not waiting.answer.done():
            waiting.answer.set_result(answer)


def _refuse(waiting: Waiting, failure: Exception) -> None:
    if not waiting.answer.done():
        waiting.answer.set_exception(failure)
        waiting.answer.exception()  # A submitter that went away leaves nobody to retrieve it.
