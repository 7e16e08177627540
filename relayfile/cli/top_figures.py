"""What `relayfile top` shows, as values: made of what the parts of a system said last. Pure.

Their field names are those of `--json`. A figure that nobody can tell now is None: rates before a second answer, and
rates of a part that does not answer.
"""

from collections import Counter
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from google.protobuf.duration_pb2 import Duration

from relayfile.cli.mirror_shown import is_stuck, state, verdict
from relayfile.cli.top_parts import Part, System, Value
from relayfile.v1 import admin_pb2, ingest_pb2, mirror_pb2, topology_pb2


@dataclass(frozen=True, slots=True)
class PartFigures:
    """Whether a part answers, and how old its figures are."""

    name: str
    age_s: float | None
    """None: it has not answered yet."""
    failure: str
    """Upper-snake reason; empty while it answers."""
    message: str


@dataclass(frozen=True, slots=True)
class NodeFigures:
    """A store node."""

    node_index: int
    address: str
    state: str
    age_s: float | None
    shard_count: int
    changes_per_s: float | None
    commits_per_s: float | None
    calls_per_s: float | None
    failed_calls_per_s: float | None
    queued_changes: int
    queued_bytes: int
    queued_bytes_max: int
    commit_p99_s: float
    """Over the last minute, as the next."""
    receive_to_commit_p99_s: float
    dead_letters: int
    operations: int
    """Write-backs that have not ended."""
    watchers: int
    cpu_cores: float | None
    resident_bytes: int
    data_bytes: int
    data_free_bytes: int
    uptime_s: float


@dataclass(frozen=True, slots=True)
class ShardFigures:
    """Shards of one owner in one state."""

    node_index: int
    """-1: nobody owns them."""
    state: str
    shard_count: int


@dataclass(frozen=True, slots=True)
class IngestFigures:
    """An ingest process, as it says itself or (``is_asked`` False) as nodes and other processes know it."""

    ingest_id: str
    is_asked: bool
    age_s: float
    pending: int


@dataclass(frozen=True, slots=True)
class IntakeFigures:
    """What comes in, over all processes that are known; spool and held objects of the one that is asked."""

    accepted_per_s: float | None
    decided_per_s: float | None
    refused_per_s: float | None
    pending: int
    oldest_pending_s: float
    spool_bytes: int
    spool_bytes_max: int
    held_objects: int


@dataclass(frozen=True, slots=True)
class ProviderFigures:
    """A provider, over all workspaces."""

    provider: str
    health: str
    accepted_per_s: float | None
    pending: int
    oldest_pending_s: float
    refused: int
    dead_lettered: int
    failure_reasons: dict[str, int]


@dataclass(frozen=True, slots=True)
class MirrorFigures:
    """A mirror."""

    mirror_id: str
    workspace_id: str
    directory: str
    state: str
    is_stuck: bool
    revision: int
    remote_revision: int
    fresh_s: float | None
    """Since it last knew that it had everything; None: it never did."""
    files: int
    files_total: int
    pending_files: int
    unsent_edits: int
    problems: int
    conflicts: int
    verdict: str


@dataclass(frozen=True, slots=True)
class WorkspaceFigures:
    """A busy workspace, over the last minute."""

    workspace_id: str
    changes_per_s: float
    bytes_per_s: float
    queued_changes: int
    watchers: int


@dataclass(frozen=True, slots=True)
class Figures:
    """All of a system at one moment."""

    time: datetime
    parts: tuple[PartFigures, ...]
    shard_count: int
    shards: tuple[ShardFigures, ...]
    nodes: tuple[NodeFigures, ...]
    intake: IntakeFigures | None
    ingest: tuple[IngestFigures, ...]
    providers: tuple[ProviderFigures, ...]
    mirrors: tuple[MirrorFigures, ...]
    busiest: tuple[WorkspaceFigures, ...]

    @property
    def dead_letters(self) -> int:
        """Those that wait for somebody."""
        return sum(node.dead_letters for node in self.nodes)

    @property
    def all_answer(self) -> bool:
        return not any(part.failure for part in self.parts)


def figures_of(system: System, now_us: int) -> Figures:
    """What is known of the system now."""
    topology = system.topology.last
    stats = [part.last for part in system.nodes.values() if part.last is not None]
    status = system.ingest.last if system.ingest is not None else None
    mirrors = system.mirrors.last if system.mirrors is not None else None
    return Figures(
        time=datetime.fromtimestamp(now_us / 1e6, UTC),
        parts=(
            _part(system.topology),
            *(_part(system.nodes[index]) for index in sorted(system.nodes)),
            *((_part(system.ingest),) if system.ingest is not None else ()),
            *((_part(system.mirrors),) if system.mirrors is not None else ()),
        ),
        shard_count=topology.shard_count if topology is not None else 0,
        shards=_shards(topology) if topology is not None else (),
        nodes=tuple(_node(system.nodes[node.node_index], node, topology) for node in topology.nodes)
        if topology is not None
        else (),
        intake=_intake(system.ingest) if system.ingest is not None else None,
        ingest=_processes(status, system.ingest, stats),
        providers=_providers(system.ingest, status) if system.ingest is not None and status is not None else (),
        mirrors=tuple(_mirror(each, now_us) for each in mirrors or ()),
        busiest=_busiest(stats),
    )


def _part(part: Part[Value]) -> PartFigures:
    failure = part.failure
    return PartFigures(
        part.name,
        part.age_s,
        failure.reason if failure is not None else "",
        str(failure) if failure is not None else "",
    )


def _shards(topology: topology_pb2.Topology) -> tuple[ShardFigures, ...]:
    counts: Counter[tuple[int, str]] = Counter()
    for each in topology.assignments:
        name = topology_pb2.ShardState.Name(each.state).removeprefix("SHARD_STATE_").lower()
        counts[each.node_index, name] += len(each.shard_ids)
    return tuple(ShardFigures(index, name, count) for (index, name), count in sorted(counts.items()))


def _node(
    part: Part[admin_pb2.NodeStats], node: topology_pb2.StoreNode, topology: topology_pb2.Topology
) -> NodeFigures:
    stats = part.last or admin_pb2.NodeStats(node=node)
    queue = next((each for each in stats.queues if each.name == "commits"), admin_pb2.QueueStats())
    seen = topology_pb2.StoreNodeState.Name(stats.node.state).removeprefix("STORE_NODE_STATE_").lower()
    owned = sum(len(each.shard_ids) for each in topology.assignments if each.node_index == node.node_index)
    return NodeFigures(
        node_index=node.node_index,
        address=node.address,
        state="no answer" if part.failure is not None else "asking" if part.last is None else seen,
        age_s=part.age_s,
        shard_count=owned,
        changes_per_s=part.per_second(lambda each: each.commits.mutation_count),
        commits_per_s=part.per_second(lambda each: each.commits.transaction_count),
        calls_per_s=part.per_second(_calls),
        failed_calls_per_s=part.per_second(_failed_calls),
        queued_changes=queue.depth,
        queued_bytes=queue.depth_bytes,
        queued_bytes_max=queue.bytes_max,
        commit_p99_s=_seconds(stats.commits.latency.p99),
        receive_to_commit_p99_s=_seconds(stats.receive_to_commit.p99),
        dead_letters=stats.pending_dead_letter_count,
        operations=sum(stats.operation_counts.values()),
        watchers=stats.watcher_count,
        cpu_cores=part.per_second(lambda each: _seconds(each.cpu_time)),
        resident_bytes=stats.resident_bytes,
        data_bytes=stats.data_bytes,
        data_free_bytes=stats.data_free_bytes,
        uptime_s=_seconds(stats.uptime),
    )


def _calls(stats: admin_pb2.NodeStats) -> float:
    return sum(each.started_count for each in stats.rpcs)


def _failed_calls(stats: admin_pb2.NodeStats) -> float:
    return sum(
        count for each in stats.rpcs for code, count in each.ended_counts.items() if code not in ("OK", "CANCELLED")
    )


def _intake(part: Part[ingest_pb2.GetIngestStatusResponse]) -> IntakeFigures:
    status = part.last or ingest_pb2.GetIngestStatusResponse()
    return IntakeFigures(
        accepted_per_s=part.per_second(lambda each: sum(one.accepted for one in each.providers)),
        decided_per_s=part.per_second(lambda each: sum(one.accepted - one.pending for one in each.providers)),
        refused_per_s=part.per_second(lambda each: sum(one.refused for one in each.providers)),
        pending=sum(each.pending for each in status.providers),
        oldest_pending_s=max((_seconds(each.oldest_pending_age) for each in status.providers), default=0.0),
        spool_bytes=status.spool_bytes,
        spool_bytes_max=status.spool_bytes_max,
        held_objects=status.queued_objects,
    )


def _processes(
    status: ingest_pb2.GetIngestStatusResponse | None,
    part: Part[ingest_pb2.GetIngestStatusResponse] | None,
    stats: list[admin_pb2.NodeStats],
) -> tuple[IngestFigures, ...]:
    """By id: those that the asked process merged, and while it does not answer those that reported to nodes."""
    found: dict[str, IngestFigures] = {}
    if part is not None and status is not None and part.failure is None:
        since = part.age_s or 0.0
        own = status.parts[-1].source  # the asked process tells of itself last
        for each in status.parts:
            if not each.source.startswith("shard"):
                age_s = _seconds(each.age) + since
                found[each.source] = IngestFigures(each.source, each.source == own, age_s, each.pending)
    for process in (process for node in stats for process in node.ingest_processes):
        known = found.get(process.ingest_id)
        if known is None:
            age_s = _seconds(process.report_age)
            found[process.ingest_id] = IngestFigures(process.ingest_id, False, age_s, process.pending_count)
        elif part is None or part.failure is not None:
            age_s = max(known.age_s, _seconds(process.report_age))
            found[process.ingest_id] = replace(known, age_s=age_s, pending=known.pending + process.pending_count)
    return tuple(found[ingest_id] for ingest_id in sorted(found))


def _providers(
    part: Part[ingest_pb2.GetIngestStatusResponse], status: ingest_pb2.GetIngestStatusResponse
) -> tuple[ProviderFigures, ...]:
    def accepted(name: str) -> float | None:
        return part.per_second(lambda each: sum(one.accepted for one in each.providers if one.provider == name))

    return tuple(
        ProviderFigures(
            provider=each.provider,
            health="paused"
            if each.paused
            else ingest_pb2.ProviderHealth.Name(each.health).removeprefix("PROVIDER_HEALTH_").lower(),
            accepted_per_s=accepted(each.provider),
            pending=each.pending,
            oldest_pending_s=_seconds(each.oldest_pending_age),
            refused=each.refused,
            dead_lettered=each.dead_lettered,
            failure_reasons=dict(sorted(each.failure_reasons.items())),
        )
        for each in status.providers
    )


def _mirror(mirror: mirror_pb2.Mirror, now_us: int) -> MirrorFigures:
    pulls = mirror.HasField("pull_progress") and mirror.pull_progress.files_total_count > 0
    counts, progress = mirror.file_counts, mirror.pull_progress
    fresh_us = mirror.fresh_time.ToMicroseconds() if mirror.HasField("fresh_time") else None
    return MirrorFigures(
        mirror_id=mirror.mirror_id,
        workspace_id=mirror.workspace_id,
        directory=mirror.directory,
        state=mirror.halt.reason.lower() if mirror.HasField("halt") else state(mirror),
        is_stuck=is_stuck(mirror),
        revision=mirror.revision,
        remote_revision=max(mirror.remote_revision, mirror.revision),
        fresh_s=max(0.0, (now_us - fresh_us) / 1e6) if fresh_us is not None else None,
        files=progress.files_done_count if pulls else counts.materialised_count,
        files_total=progress.files_total_count if pulls else counts.tracked_count,
        pending_files=counts.pending_count,
        unsent_edits=mirror.outbox.pending_count,
        problems=mirror.problem_count,
        conflicts=mirror.conflict_count,
        verdict=verdict(mirror.verdict),
    )


def _busiest(stats: list[admin_pb2.NodeStats]) -> tuple[WorkspaceFigures, ...]:
    found = [
        WorkspaceFigures(
            each.workspace_id,
            each.mutations_per_second,
            each.bytes_per_second,
            each.waiting_count,
            each.watcher_count,
        )
        for node in stats
        for each in node.top_workspaces
    ]
    return tuple(sorted(found, key=lambda each: (-each.changes_per_s, each.workspace_id)))


def _seconds(duration: Duration) -> float:
    return duration.seconds + duration.nanos / 1e9
