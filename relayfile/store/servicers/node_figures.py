"""GetStats: the counters and gauges of this node as one message.

Owns where each figure comes from: the node's instruments, the kernel, the engine's sums. On the way
of a change only `NodeActivity` counts, once for each entry.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, TypeAlias

from prometheus_client import CollectorRegistry

from relayfile.clock import Clock
from relayfile.errors import Unavailable
from relayfile.placement import shards_of_node
from relayfile.store.integrity.background import ScrubState
from relayfile.store.node import Node
from relayfile.store.sqlite.census import NodeCount, ShardCount
from relayfile.store.sqlite.operation_census import OperationCount
from relayfile.telemetry import get_logger
from relayfile.telemetry.window import LOOK_S, Labels, LastMinute, Spread
from relayfile.v1 import admin_pb2, topology_pb2
from relayfile.wire import set_us

MICROSECONDS: Final = 1_000_000
REPORT_S: Final = 60
TOP_MAX: Final = 100
"""Workspaces in `top_workspaces`."""
_STATUS: Final = Path("/proc/self/status")
_DESCRIPTORS: Final = "/proc/self/fd"
_NO_SHARD: Final = ShardCount()
_CALLS: Final = "relayfile_rpc_calls_total"
_OPEN: Final = "relayfile_rpc_open"
_log = get_logger(__name__)

Samples: TypeAlias = dict[tuple[str, Labels], float]
Spreads: TypeAlias = dict[tuple[str, Labels], Spread]


class NodeFigures:
    """The figures of one node."""

    def __init__(
        self,
        node: Node,
        count: Callable[[], Awaitable[NodeCount]],
        operations: Callable[[], Awaitable[OperationCount]],
        registry: CollectorRegistry,
        data_dir: Path,
        version: str,
        started_us: int,
        scrub: ScrubState | None = None,
    ) -> None:
        """`scrub`: the one in the background; None where it is off."""
        self._node = node
        self._clock: Clock = node.clock
        self._count = count
        self._operations = operations
        self._registry = registry
        self._data_dir = data_dir
        self._version = version
        self._started_us = started_us
        self._scrub = scrub
        self._minute = LastMinute(registry)

    async def run(self) -> None:
        """Keep the windows of the last minute and the gauges of what waits, until cancelled."""
        while True:
            self._minute.look(self._clock.monotonic())
            try:
                await self.look()
            except Unavailable as error:
                _log.warning("operations could not be counted", why=str(error))
            await asyncio.sleep(LOOK_S)

    async def look(self) -> None:
        """Set the gauges of operations."""
        count = await self._operations()
        gauges = self._node.writeback
        for state, number in count.by_state.items():
            gauges.operations.labels(state.name.lower()).set(number)
        since_us = count.oldest_claimable_us
        waited_us = 0 if since_us is None else max(0, self._clock.now_us() - since_us)
        gauges.oldest_claimable_seconds.set(waited_us / MICROSECONDS)

    async def fill(self, into: admin_pb2.NodeStats, *, include_shards: bool, top_max: int = 0) -> None:
        """Fill an empty message; with the figures of each shard, and of at most `top_max` workspaces."""
        now_us = self._clock.now_us()
        placement = self._node.ownership.placement
        into.node.node_index = placement.node_index
        into.node.address = placement.addresses[placement.node_index]
        into.node.state = topology_pb2.STORE_NODE_STATE_SERVING
        into.node.version = self._version
        set_us(into.node.start_time, self._started_us)
        set_us(into.read_time, now_us)
        into.uptime.FromMicroseconds(now_us - self._started_us)
        self._fill_process(into)
        samples = {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in self._registry.collect()
            for sample in family.samples
        }
        spreads = self._minute.spreads()
        _fill_commits(into.commits, samples, spreads)
        _fill_rpcs(into, samples, spreads)
        _fill_latency(into.receive_to_commit, spreads.get(("relayfile_store_receive_to_commit_seconds", ())))
        self._fill_queues(into)
        if self._scrub is not None:
            _fill_scrub(into.scrub, self._scrub)
        if top_max:
            self._fill_top(into, min(top_max, TOP_MAX))
        await self._fill_rows(into, include_shards=include_shards)
        for report in self._node.reports.about("", now_us):
            if now_us - report.reported_us > REPORT_S * MICROSECONDS:
                continue
            process = into.ingest_processes.add(ingest_id=report.ingest_id)
            process.report_age.FromMicroseconds(max(0, now_us - report.reported_us))
            process.pending_count = sum(each.pending for each in report.pending)
        into.ingest_processes.sort(key=lambda process: process.ingest_id)

    def _fill_process(self, into: admin_pb2.NodeStats) -> None:
        times = os.times()
        into.cpu_time.FromMicroseconds(round((times.user + times.system) * MICROSECONDS))
        status = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines() if ":" in line)
        into.resident_bytes = int(status["VmRSS"].split()[0]) * 1024
        into.thread_count = int(status["Threads"])
        into.open_descriptor_count = len(os.listdir(_DESCRIPTORS))
        files = self._data_dir.glob("store.db*")
        into.data_bytes = sum(file.stat().st_size for file in files if file.is_file())
        disk = os.statvfs(self._data_dir)
        into.data_free_bytes = disk.f_bavail * disk.f_frsize

    def _fill_queues(self, into: admin_pb2.NodeStats) -> None:
        changes, size_bytes = self._node.committer.waiting
        bounds = self._node.policy.commit.bounds
        into.queues.add(name="commits", depth=changes, depth_bytes=size_bytes, bytes_max=bounds.node_bytes_max)

    def _fill_top(self, into: admin_pb2.NodeStats, limit: int) -> None:
        watchers = self._node.holds.open_counts()
        for busy in self._node.activity.busiest(limit):
            into.top_workspaces.add(
                workspace_id=busy.key.workspace_id,
                mutations_per_second=busy.changes_per_s,
                bytes_per_second=busy.bytes_per_s,
                waiting_count=self._node.committer.waiting_of(busy.key),
                watcher_count=watchers[busy.key],
            )

    async def _fill_rows(self, into: admin_pb2.NodeStats, *, include_shards: bool) -> None:
        count = await self._count()
        for shard in count.shards.values():
            into.workspace_count += shard.workspace_count
            into.file_count += shard.file_count
            into.total_bytes += shard.total_bytes
        into.pending_dead_letter_count = count.pending_letters
        for state, number in (await self._operations()).by_state.items():
            into.operation_counts[state.name.lower()] = number
        for outcomes in await self._node.engine.node_outcomes():
            for outcome, number in outcomes.counts.items():
                into.outcome_counts[outcome.name.lower()] += number
        placement = self._node.ownership.placement
        owned = shards_of_node(placement.node_index, len(placement.addresses), placement.shard_count)
        into.owned_shard_count = len(owned)
        for shard_id in owned if include_shards else ():
            held = count.shards.get(shard_id, _NO_SHARD)
            into.shards.add(
                shard_id=shard_id,
                epoch=self._node.ownership.epoch_of(shard_id),
                state=topology_pb2.SHARD_STATE_SERVING,
                workspace_count=held.workspace_count,
                file_count=held.file_count,
                total_bytes=held.total_bytes,
                revision_count=self._node.activity.revisions.get(shard_id, 0),
            )


def _fill_scrub(into: admin_pb2.ScrubStats, state: ScrubState) -> None:
    into.running = state.is_running
    if state.started_us is not None:
        set_us(into.start_time, state.started_us)
    into.content_count = state.content_count
    into.content_bytes = state.content_bytes
    into.finding_count = state.finding_count
    if state.ended_us is not None:
        set_us(into.end_time, state.ended_us)
    into.last_finding_count = state.last_finding_count


def _fill_commits(into: admin_pb2.CommitStats, samples: Samples, spreads: Spreads) -> None:
    transactions = int(samples.get(("relayfile_store_commits_total", ()), 0))
    into.transaction_count = transactions
    into.fsync_count = transactions
    into.entry_count = int(samples.get(("relayfile_store_entries_total", ()), 0))
    into.mutation_count = int(samples.get(("relayfile_store_commit_changes_sum", ()), 0))
    into.fenced_count = int(samples.get(("relayfile_store_fenced_total", ()), 0))
    _fill_latency(into.latency, spreads.get(("relayfile_store_commit_seconds", ())))


def _fill_rpcs(into: admin_pb2.NodeStats, samples: Samples, spreads: Spreads) -> None:
    rpcs: dict[str, admin_pb2.RpcStats] = {}
    for (name, labels), value in samples.items():
        named = dict(labels)
        method = named.get("method", "")
        if not method or name not in (_CALLS, _OPEN):
            continue
        stats = rpcs.setdefault(method, admin_pb2.RpcStats(method=method))
        if name == _OPEN:
            stats.active_count = int(value)
            stats.started_count += int(value)
            if method.endswith("EventService/WatchEvents"):
                into.watcher_count = int(value)
        else:
            stats.ended_counts[named["code"]] = int(value)
            stats.started_count += int(value)
    for method in sorted(rpcs):
        _fill_latency(rpcs[method].latency, spreads.get(("relayfile_rpc_seconds", (("method", method),))))
        if rpcs[method].started_count:
            into.rpcs.append(rpcs[method])


def _fill_latency(into: admin_pb2.LatencyStats, spread: Spread | None) -> None:
    if spread is None:
        return
    into.count = spread.measured
    for field, seconds in ((into.p50, spread.p50_s), (into.p99, spread.p99_s), (into.longest, spread.longest_s)):
        field.FromMicroseconds(round(seconds * MICROSECONDS))
