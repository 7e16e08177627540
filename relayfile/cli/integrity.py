"""`relayfile audit | scrub`: whether what is stored agrees with itself, on a running system or a stopped one."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import typer

from relayfile.cli.running_system import DATA_DIR, JSON_LINES
from relayfile.cli.shown import as_json

if TYPE_CHECKING:
    from relayfile.v1.admin_pb2 import AuditRequest, AuditResponse, IntegrityFinding, ScrubRequest, ScrubResponse
    from relayfile.v1.admin_pb2_grpc import AdminServiceAsyncStub

    Message: TypeAlias = AuditResponse | ScrubResponse
    Request: TypeAlias = AuditRequest | ScrubRequest

EXIT_FOUND = 1
WORKSPACE = typer.Option("", "--workspace", help="Only this workspace.")
STOPPED = typer.Option(
    None,
    "--stopped",
    help="The data directory of a store node that does not run, or of a whole local system.",
    exists=True,
    file_okay=False,
)
FINDINGS_MAX = typer.Option(1_000, "--findings-max", min=1, help="End after so many findings on one node.")


def audit(
    workspace: str = WORKSPACE,
    strict: bool = typer.Option(False, "--strict", help="Hash every content too, and count what heals by itself."),
    stopped: Path | None = STOPPED,
    findings_max: int = FINDINGS_MAX,
    json_lines: bool = JSON_LINES,
    data_dir: Path = DATA_DIR,
) -> None:
    """Recount what is kept beside the rows: digests, outcomes, revisions, references. Exit code 1: findings."""
    from relayfile.v1 import admin_pb2

    request = admin_pb2.AuditRequest(workspace_id=workspace, strict=strict, findings_max=findings_max)
    _run(request, stopped, data_dir, json_lines)


def scrub(
    workspace: str = WORKSPACE,
    rate: str = typer.Option("", "--rate", help="Bytes to read in a second, such as 8MiB; default: the node's."),
    stopped: Path | None = STOPPED,
    findings_max: int = FINDINGS_MAX,
    json_lines: bool = JSON_LINES,
    data_dir: Path = DATA_DIR,
) -> None:
    """Read every stored content and compare it with its hash. Exit code 1: something is damaged."""
    from relayfile.settings.definition import parse_size
    from relayfile.v1 import admin_pb2

    try:
        bytes_per_second_max = parse_size(rate) if rate else 0
    except ValueError as error:
        raise typer.BadParameter(f"{rate!r} {error}", param_hint="--rate") from None
    request = admin_pb2.ScrubRequest(
        workspace_id=workspace, bytes_per_second_max=bytes_per_second_max, findings_max=findings_max
    )
    _run(request, stopped, data_dir, json_lines)


def _run(request: "Request", stopped: Path | None, data_dir: Path, json_lines: bool) -> None:
    work = _of_running(request, data_dir, json_lines) if stopped is None else _of_stopped(request, stopped, json_lines)
    if not asyncio.run(work):
        raise typer.Exit(EXIT_FOUND)


async def _of_running(request: "Request", data_dir: Path, json_lines: bool) -> bool:
    """Ask the owner of the workspace, or each node in turn. Whether all is clean."""
    from relayfile.cli.connection import connect, open_channel
    from relayfile.v1 import admin_pb2, topology_pb2
    from relayfile.v1.admin_pb2_grpc import AdminServiceStub
    from relayfile.v1.topology_pb2_grpc import TopologyServiceStub

    system = connect(data_dir)
    shown = system.credentials
    is_clean = True
    async with open_channel(system.store) as channel:
        stub: AdminServiceAsyncStub = AdminServiceStub(channel)
        if request.workspace_id:
            nodes = [-1]
        else:
            topology = await TopologyServiceStub(channel).GetTopology(topology_pb2.GetTopologyRequest(), metadata=shown)
            nodes = [node.node_index for node in topology.topology.nodes]
        for index in nodes:
            if index >= 0:
                request.node_index = index
            if isinstance(request, admin_pb2.AuditRequest):
                call: AsyncIterator[Message] = aiter(stub.Audit(request, metadata=shown))
            else:
                call = aiter(stub.Scrub(request, metadata=shown))
            name = f"node {index}" if index >= 0 else request.workspace_id
            is_clean &= await _show(call, name, json_lines)
    return is_clean


async def _of_stopped(request: "Request", directory: Path, json_lines: bool) -> bool:
    """Look for ourselves. Whether all is clean."""
    from relayfile.clock import SystemClock
    from relayfile.store.servicers.audit_stream import audit_messages, audit_order, scrub_messages, scrub_order
    from relayfile.store.servicers.checks import Checks
    from relayfile.store.sqlite.stopped import node_directories, stopped_audit
    from relayfile.v1 import admin_pb2

    clock, checks = SystemClock(), Checks()
    is_clean = True
    for each in node_directories(directory):
        with stopped_audit(each, clock, request.workspace_id) as auditor:
            if auditor is None:
                continue  # another node's workspace
            if isinstance(request, admin_pb2.AuditRequest):
                order = audit_order(checks, request)
                messages: AsyncIterator[Message] = audit_messages(auditor, order, clock)
            else:
                order = scrub_order(checks, request, 0)
                messages = scrub_messages(auditor, order, clock)
            checks.done()
            is_clean &= await _show(messages, str(each), json_lines)
    return is_clean


async def _show(messages: "AsyncIterator[Message]", name: str, json_lines: bool) -> bool:
    """Print findings and the result; whether there were none."""
    is_clean = False
    async for message in messages:
        match message.WhichOneof("item"):
            case "finding":
                print(as_json(message) if json_lines else _finding_text(message.finding), flush=True)
            case "progress":
                if json_lines:
                    print(as_json(message), flush=True)
            case "result":
                is_clean = message.result.clean
                print(as_json(message, zeros=True) if json_lines else _result_text(message, name), flush=True)
    return is_clean


def _finding_text(finding: "IntegrityFinding") -> str:
    from relayfile.v1.admin_pb2 import AuditCheck

    check = AuditCheck.Name(finding.check).removeprefix("AUDIT_CHECK_").lower()
    place = finding.workspace_id or (f"shard {finding.shard_id}" if finding.shard_id >= 0 else "node")
    return f"{finding.reason}  {place}  {finding.subject}  ({check}): {finding.message}"


def _result_text(message: "Message", name: str) -> str:
    from relayfile.v1 import admin_pb2

    if isinstance(message, admin_pb2.AuditResponse):
        result = message.result
        seen = (
            f"{result.workspace_count} workspaces, {result.file_count} files, {result.event_count} events,"
            f" {result.change_count} changes"
        )
    else:
        seen = f"{message.result.content_count} contents, {message.result.content_bytes} bytes"
    count = message.result.finding_count
    found = "clean" if message.result.clean else f"{count} finding{'s' * (count > 1)}"
    more = ", and it ended there" * message.result.truncated
    return f"{name}: {found}{more}; {seen} in {message.result.duration.ToMicroseconds() / 1e6:.1f} s"
