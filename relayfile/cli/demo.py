"""`relayfile demo`: the main job in under a minute, on a temporary system that is gone afterwards.

Each step checks what it shows and raises `DemoFailed` when it did not happen; the exit code is then 1.
"""

import asyncio
import os
import signal
import tempfile
import textwrap
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import quantiles
from typing import TYPE_CHECKING

import typer

from relayfile.errors import RelayfileError

if TYPE_CHECKING:
    import grpc.aio

    from relayfile.cli.connection import Credentials
    from relayfile.clock import Clock
    from relayfile.local.samples import Sample
    from relayfile.local.system import LocalSystem
    from relayfile.v1.event_pb2 import Event
    from relayfile.v1.ingest_pb2 import ProviderStatus

NODE_COUNT = 2
NAMES = ("warehouse", "bakery", "harbour", "museum", "orchard", "quarry", "station", "theatre")
ISSUES_EACH = 30
SENDERS = 8
EDITS = 50
LATENCY_SAMPLES = 40
OK = 200
ON_DISK_TIMEOUT_S = 20.0
POLL_INTERVAL_S = 0.001
TREE_SIBLINGS_MAX = 3


class DemoFailed(RelayfileError):
    """A step of the demonstration did not happen."""

    reason = "DEMO_FAILED"

    def __init__(self, why: str) -> None:
        super().__init__()
        self.why = why

    def __str__(self) -> str:
        return f"the demonstration failed: {self.why}"


@dataclass(slots=True)
class Tour:
    """What the steps share: the system, one workspace and directory per node, what was sent and seen."""

    system: "LocalSystem"
    clock: "Clock"
    channel: "grpc.aio.Channel"
    shown: "Credentials"
    mirrors: dict[str, Path]
    """Workspace -> its mirror; the i-th belongs to node i."""
    events: dict[str, "list[Event]"] = field(default_factory=dict)
    received: int = 0
    latencies_ms: list[float] = field(default_factory=list)


def demo(
    payloads: Path | None = typer.Option(
        None, "--payloads", help="Also send the GitHub payloads in this directory (EVENT__NAME.json).", file_okay=False
    ),
) -> None:
    """Start two store nodes, ingest and syncd; send signed webhooks; show the files; stop a node; clean up."""
    asyncio.run(_demo(payloads))


async def _demo(payloads: Path | None) -> None:
    from relayfile.cli.connection import bearer, open_channel
    from relayfile.cli.up import development_token
    from relayfile.clock import SystemClock
    from relayfile.local.layout import Layout
    from relayfile.local.system import choose_ports, local_system, running

    clock = SystemClock()
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    with tempfile.TemporaryDirectory(prefix="relayfile-demo-") as folder:
        layout = Layout(Path(folder) / "data")
        layout.create(NODE_COUNT)
        system = local_system(layout, choose_ports(NODE_COUNT, usual=False), clock)
        _step(f"starting {NODE_COUNT} store nodes, ingest and syncd")
        async with running(system):
            token = development_token(layout)
            print(f"   {', '.join(f'{name} (pid {process.pid})' for name, process in system.processes.items())}")
            mirrors = {workspace: Path(folder) / "mirrors" / workspace for workspace in _one_workspace_per_node()}
            async with open_channel(system.ports.node_addresses[0]) as channel:
                tour = Tour(system, clock, channel, bearer(token), mirrors)
                async with _watching(tour):
                    await _make_mirrors(tour)
                    await _send_a_morning(tour)
                    await _send_payloads(tour, payloads)
                    await _measure_latency(tour)
                    await _fold_edits(tour)
                    await _stop_a_node(tour)
                    await _show_tree(tour)
                    await _show_table(tour)
        _step("everything is stopped and the temporary data are removed")
    print("   next: .venv/bin/relayfile up --nodes 2    the same, staying up, with a token and a URL to send to")
    print("         README.md has a tour, docs/architecture.md the promises")


def _one_workspace_per_node() -> list[str]:
    from relayfile.placement import node_of, shard_of

    return [next(name for name in NAMES if node_of(shard_of(name), NODE_COUNT) == node) for node in range(NODE_COUNT)]


@asynccontextmanager
async def _watching(tour: Tour) -> AsyncIterator[None]:
    """Create the workspaces and follow their events while the steps run; a node's restart is ridden out."""
    from relayfile.v1 import workspace_pb2
    from relayfile.v1.workspace_pb2_grpc import WorkspaceServiceStub

    for workspace in tour.mirrors:
        await WorkspaceServiceStub(tour.channel).CreateWorkspace(
            workspace_pb2.CreateWorkspaceRequest(workspace_id=workspace), metadata=tour.shown
        )
        tour.events[workspace] = []
    async with asyncio.TaskGroup() as group:
        watchers = [
            group.create_task(_follow(tour, workspace, address))
            for workspace, address in zip(tour.mirrors, tour.system.ports.node_addresses, strict=True)
        ]
        yield
        for watcher in watchers:
            watcher.cancel()


async def _follow(tour: Tour, workspace: str, address: str) -> None:
    import grpc

    from relayfile.cli.connection import open_channel
    from relayfile.v1 import event_pb2
    from relayfile.v1.event_pb2_grpc import EventServiceStub

    seen = tour.events[workspace]
    cursor, history = 0, ""
    async with open_channel(address) as channel:
        while True:
            request = event_pb2.WatchEventsRequest(
                workspace_id=workspace, after_revision=cursor, history_id=history if cursor else ""
            )
            try:
                async for message in EventServiceStub(channel).WatchEvents(request, metadata=tour.shown):
                    seen.extend(message.events)
                    cursor = message.events[-1].revision if message.events else cursor
                    if message.HasField("mark"):
                        cursor, history = message.mark.revision, message.mark.history_id
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
                await asyncio.sleep(0.2)  # its node restarts; the cursor says where to go on


async def _make_mirrors(tour: Tour) -> None:
    from relayfile.cli.connection import open_channel
    from relayfile.v1 import mirror_pb2
    from relayfile.v1.mirror_pb2_grpc import MirrorServiceStub

    _step("mirroring two workspaces to local directories")
    async with open_channel(tour.system.addresses["syncd"].grpc) as channel:
        for workspace, directory in tour.mirrors.items():
            directory.parent.mkdir(exist_ok=True)
            request = mirror_pb2.CreateMirrorRequest(
                workspace_id=workspace, directory=str(directory), follow=True, read_only=True
            )
            await MirrorServiceStub(channel).CreateMirror(request, metadata=tour.shown)
            print(f"   {workspace} -> {directory}")


async def _send_a_morning(tour: Tour) -> None:
    from relayfile.local import samples

    _step("sending signed GitHub webhooks: a morning in two companies")
    for workspace in tour.mirrors:
        deliveries = list(samples.morning("conveyor", ISSUES_EACH))
        await _send(tour, workspace, deliveries)
        print(f"   {workspace}: {len(deliveries)} webhooks answered 200")
    for workspace, directory in tour.mirrors.items():
        expected = sum(1 for _ in samples.morning("conveyor", ISSUES_EACH))
        await _until(tour, partial(_has_files, directory, expected), f"{expected} files in {workspace}")
    first = tour.events[next(iter(tour.mirrors))][:3]
    for event in first:
        print(f"   event {event.revision}: {_event_name(event)} {event.path}")


async def _send_payloads(tour: Tour, payloads: Path | None) -> None:
    from relayfile.local.samples import Sample

    if payloads is None:
        return
    _step(f"sending the payloads in {payloads}")
    found = sorted(payloads.glob("*__*.json"))
    if not found:
        raise DemoFailed(f"there are no EVENT__NAME.json files in {payloads}")
    deliveries = [Sample(path.name.split("__")[0], f"payload-{path.name}", path.read_bytes()) for path in found]
    await _send(tour, next(iter(tour.mirrors)), deliveries)
    print(f"   {len(deliveries)} webhooks answered 200")


async def _measure_latency(tour: Tour) -> None:
    from relayfile.local import samples

    _step(f"measuring {LATENCY_SAMPLES} webhooks from request to file on disk")
    workspace, directory = next(iter(tour.mirrors.items()))
    for number in range(1, LATENCY_SAMPLES + 1):
        path = directory / _issue_path("scale", number)
        started = tour.clock.monotonic()
        await _send(tour, workspace, [samples.issue("scale", number)])
        await _until(tour, path.exists, f"{path} on disk")
        tour.latencies_ms.append((tour.clock.monotonic() - started) * 1000)
    p50, p99 = _percentiles(tour.latencies_ms)
    print(f"   p50 {p50:.1f} ms, p99 {p99:.1f} ms")


async def _fold_edits(tour: Tour) -> None:
    from relayfile.local import samples

    _step(f"editing one issue {EDITS} times in a row")
    workspace, directory = next(iter(tour.mirrors.items()))
    path = directory / _issue_path("lift", 1)
    started = tour.clock.monotonic()
    edits = [samples.issue("lift", 1, edit=edit) for edit in range(EDITS)]
    await _send(tour, workspace, edits[:1])
    await _until(tour, path.exists, "the first edit on disk")
    first_ms = (tour.clock.monotonic() - started) * 1000
    await _send(tour, workspace, edits[1:], senders=1)
    last_title = f"(edit {EDITS - 1})"
    await _until(tour, lambda: last_title in path.read_text(), "the last edit on disk")
    remote = "/" + _issue_path("lift", 1)
    await _until(tour, lambda: _writes(tour, workspace, remote) >= 2, "its event")
    writes = _writes(tour, workspace, remote)
    print(
        f"   first edit on disk after {first_ms:.0f} ms, {EDITS - 1} folded, {writes - 1} more write after the window"
    )
    if writes != 2:
        raise DemoFailed(f"{EDITS} quick edits made {writes} writes; 2 were expected")


async def _stop_a_node(tour: Tour) -> None:
    from relayfile.local import samples

    name = f"store-{NODE_COUNT - 1}"
    workspace, directory = list(tour.mirrors.items())[-1]
    _step(f"stopping {name}, which owns {workspace}")
    await tour.system.processes[name].stop(grace_s=20)
    deliveries = [samples.issue("crane", number) for number in range(1, 21)]
    await _send(tour, workspace, deliveries)
    print(f"   {len(deliveries)} webhooks for {workspace} were answered 200 meanwhile")
    if (directory / _issue_path("crane", 1)).exists():
        raise DemoFailed("a file of the stopped node appeared")
    await tour.system.start_one(name)
    started = tour.clock.monotonic()
    for number in range(1, len(deliveries) + 1):
        path = directory / _issue_path("crane", number)
        await _until(tour, path.exists, f"{path} after the restart")
    print(f"   {name} is back; all {len(deliveries)} files on disk {tour.clock.monotonic() - started:.1f} s later")


async def _show_tree(tour: Tour) -> None:
    workspace, directory = next(iter(tour.mirrors.items()))
    _step(f"the mirrored tree of {workspace}")
    _show_directory(directory, 0)
    path = directory / _issue_path("lift", 1)
    print(f"\n   $ cat {path.relative_to(directory.parent)}")
    print(textwrap.indent(path.read_text().rstrip(), "   "))


def _show_directory(directory: Path, depth: int) -> None:
    """Print the directories below `directory`, of many siblings only the first ones."""
    below = sorted(each for each in directory.iterdir() if each.is_dir() and each.name != ".relayfile")
    for path in below[:TREE_SIBLINGS_MAX]:
        files = sum(1 for each in path.iterdir() if each.is_file())
        print(f"   {'  ' * depth}{path.name}/" + (f"   {files} files" if files else ""))
        _show_directory(path, depth + 1)
    if len(below) > TREE_SIBLINGS_MAX:
        print(f"   {'  ' * depth}... and {len(below) - TREE_SIBLINGS_MAX} more directories")


async def _show_table(tour: Tour) -> None:
    from rich.console import Console
    from rich.table import Table

    totals = await _settled(tour)
    files = sum(_file_count(directory) for directory in tour.mirrors.values())
    p50, p99 = _percentiles(tour.latencies_ms)
    table = Table(title="what happened")
    for column in ("webhooks received", "coalesced", "applied", "files", "p50 to disk", "p99 to disk"):
        table.add_column(column, justify="right")
    table.add_row(
        str(tour.received),
        str(sum(each.coalesced for each in totals)),
        str(sum(each.applied for each in totals)),
        str(files),
        f"{p50:.1f} ms",
        f"{p99:.1f} ms",
    )
    Console().print(table)
    if lost := sum(each.dead_lettered for each in totals):
        raise DemoFailed(f"{lost} changes ended as dead letters")


async def _settled(tour: Tour) -> "list[ProviderStatus]":
    """The outcome counts once every accepted change has one."""
    from relayfile.cli.connection import open_channel
    from relayfile.v1 import ingest_pb2
    from relayfile.v1.ingest_pb2_grpc import IngestServiceStub

    deadline = tour.clock.monotonic() + ON_DISK_TIMEOUT_S
    async with open_channel(tour.system.addresses["ingest"].grpc) as channel:
        stub = IngestServiceStub(channel)
        while True:
            requests = [ingest_pb2.GetIngestStatusRequest(workspace_id=workspace) for workspace in tour.mirrors]
            found = [
                each
                for request in requests
                for each in (await stub.GetIngestStatus(request, metadata=tour.shown)).providers
            ]
            if not any(each.pending for each in found):
                return found
            if tour.clock.monotonic() > deadline:
                raise DemoFailed("some changes still have no outcome")
            await asyncio.sleep(0.2)


async def _send(tour: Tour, workspace: str, deliveries: "Iterable[Sample]", senders: int = SENDERS) -> None:
    """Post all of them over `senders` connections; every answer must be 200."""
    from relayfile.local.delivery import Sender, github_delivery

    waiting = list(deliveries)[::-1]
    secret = tour.system.layout.webhook_secret(workspace, "github")
    url = f"http://{tour.system.addresses['ingest'].http}"

    async def work() -> None:
        async with Sender(url) as sender:
            while waiting:
                sample = waiting.pop()
                answer = await sender.post(
                    github_delivery(workspace, sample.event, sample.body, secret=secret, delivery_id=sample.delivery_id)
                )
                if answer.status != OK:
                    raise DemoFailed(f"webhook {sample.delivery_id} was answered {answer.status}")
                tour.received += 1

    async with asyncio.TaskGroup() as group:
        for _ in range(min(senders, len(waiting))):
            group.create_task(work())


async def _until(tour: Tour, happened: Callable[[], bool], what: str) -> None:
    deadline = tour.clock.monotonic() + ON_DISK_TIMEOUT_S
    while not happened():
        if tour.clock.monotonic() > deadline:
            raise DemoFailed(f"no {what} within {ON_DISK_TIMEOUT_S:.0f} s")
        await asyncio.sleep(POLL_INTERVAL_S)


def _issue_path(repository: str, number: int) -> str:
    return f"github/repos/acme/{repository}/issues/{number}.json"


def _has_files(directory: Path, count: int) -> bool:
    return _file_count(directory) >= count


def _file_count(directory: Path) -> int:
    return sum(len(files) for at, _, files in os.walk(directory) if ".relayfile" not in at)


def _writes(tour: Tour, workspace: str, path: str) -> int:
    return sum(event.path == path for event in tour.events[workspace])


def _percentiles(values: list[float]) -> tuple[float, float]:
    cuts = quantiles(values, n=100, method="inclusive")
    return cuts[49], cuts[98]


def _event_name(event: "Event") -> str:
    from relayfile.v1 import event_pb2

    return event_pb2.EventType.Name(event.type).removeprefix("EVENT_TYPE_").lower()


def _step(title: str) -> None:
    print(f"\n-- {title}", flush=True)
