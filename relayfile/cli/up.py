"""`relayfile up`: the whole system on this machine, staying up until Ctrl-C."""

import asyncio
import os
import signal
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from relayfile.errors import StartRefused

if TYPE_CHECKING:
    from relayfile.local.layout import Layout
    from relayfile.local.system import LocalSystem

DEVELOPMENT_WORKSPACE = "demo"
DEVELOPMENT_TOKEN_TTL_S = 30 * 24 * 3600
RESTART_DELAY_MAX_S = 30.0


def up(
    data_dir: Path = typer.Option(
        Path("relayfile-data"), "--data-dir", envvar="RELAYFILE_DATA_DIR", help="Where everything is kept."
    ),
    nodes: int | None = typer.Option(
        None, "--nodes", min=1, max=64, help="Store nodes; recorded at the first start (default 1)."
    ),
) -> None:
    """Run store nodes, ingest and syncd with embedded defaults. Ctrl-C drains them in order; data survive."""
    raise typer.Exit(asyncio.run(_up(data_dir.resolve(), nodes)))


async def _up(data_dir: Path, node_count: int | None) -> int:
    from filelock import FileLock, Timeout

    from relayfile.clock import SystemClock
    from relayfile.data_directory import DataDirectory
    from relayfile.local.layout import Layout
    from relayfile.local.system import choose_ports, local_system

    layout = Layout(data_dir)
    count = layout.create(node_count)
    try:
        # The second lock is that of a process by itself: `relayfile store` must not settle between these folders.
        with FileLock(data_dir / "up.lock", timeout=0), DataDirectory(data_dir):
            system = local_system(layout, choose_ports(count, usual=True), SystemClock())
            return await _until_interrupted(system)
    except Timeout:
        raise StartRefused(why=f"another `relayfile up` runs on {data_dir}; choose another --data-dir") from None


async def _until_interrupted(system: "LocalSystem") -> int:
    stop, kill = asyncio.Event(), asyncio.Event()

    def interrupted() -> None:
        (kill if stop.is_set() else stop).set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, interrupted)
    try:
        if await _before(stop, system.start()):
            token = development_token(system.layout)
            await _make_development_workspace(system, token)
            system.layout.write_runtime(system.runtime(os.getpid()))
            _greet(system, token)
            await _before(stop, _supervise(system))
    finally:
        print("stopping: ingest drains, then syncd, then the nodes (Ctrl-C again ends at once)", flush=True)
        if not await _before(kill, system.stop()):
            for process in system.processes.values():
                await process.kill()
    return 0


async def _before(event: asyncio.Event, work: Coroutine[None, None, None]) -> bool:
    """Run `work` until it ends (True; its error is raised) or the event is set (False; it is cancelled)."""
    async with asyncio.TaskGroup() as group:
        task = group.create_task(work)
        waiter = group.create_task(event.wait())
        await asyncio.wait({task, waiter}, return_when=asyncio.FIRST_COMPLETED)
        waiter.cancel()
        if task.done():
            task.result()
            return True
        task.cancel()
    return False


async def _supervise(system: "LocalSystem") -> None:
    async with asyncio.TaskGroup() as group:
        for name in system.processes:
            group.create_task(_keep_running(system, name))


async def _keep_running(system: "LocalSystem", name: str) -> None:
    """Start a process again when it ends by itself, later each time."""
    delay_s = 0.5
    while True:
        code = await system.processes[name].exit_code()
        print(f"{name} ended with {code}; starting it again in {delay_s:g} s", flush=True)
        await asyncio.sleep(delay_s)
        delay_s = min(delay_s * 2, RESTART_DELAY_MAX_S)
        try:
            await system.start_one(name)
        except StartRefused as error:
            print(f"relayfile: {error}", flush=True)


def development_token(layout: "Layout") -> str:
    """A token for everything, kept beside the keys for the other commands."""
    from relayfile.auth import EVERY_SCOPE, KeyStore, TokenSigner
    from relayfile.clock import SystemClock
    from relayfile.local.layout import write_atomically

    signer = TokenSigner(KeyStore(layout.keys).signing_key(), SystemClock())
    token = signer.mint("development", workspaces="*", ttl_s=DEVELOPMENT_TOKEN_TTL_S, scopes=(EVERY_SCOPE,))
    write_atomically(layout.token, token + "\n")
    return token


async def _make_development_workspace(system: "LocalSystem", token: str) -> None:
    """So that a mirror can be made before the first webhook."""
    import grpc

    from relayfile.cli.connection import bearer, open_channel
    from relayfile.v1.workspace_pb2 import CreateWorkspaceRequest
    from relayfile.v1.workspace_pb2_grpc import WorkspaceServiceStub

    async with open_channel(system.ports.node_addresses[0]) as channel:
        request = CreateWorkspaceRequest(workspace_id=DEVELOPMENT_WORKSPACE)
        try:
            await WorkspaceServiceStub(channel).CreateWorkspace(request, metadata=bearer(token))
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.ALREADY_EXISTS:
                raise


def _greet(system: "LocalSystem", token: str) -> None:
    runtime = system.runtime(os.getpid())
    secret = system.layout.webhook_secret(DEVELOPMENT_WORKSPACE, "github")
    print(f"relayfile is up. Data: {system.layout.root}  Logs: {system.layout.root / 'logs'}")
    print(f"  webhooks   {runtime.ingest_http}/v1/workspaces/{DEVELOPMENT_WORKSPACE}/webhooks/github")
    print(f"             signed with {secret}")
    print(f"             of others: secrets in {system.layout.secrets}/WORKSPACE/PROVIDER")
    print(f"  publish    {runtime.ingest_grpc}   store {' '.join(runtime.nodes)}   mirrors {runtime.syncd_grpc}")
    print(f"  token      {token}")
    print("Try, in another terminal:")
    print(f"  relayfile mirror add {DEVELOPMENT_WORKSPACE} ./mirror --follow")
    print(f"  relayfile send {DEVELOPMENT_WORKSPACE} --sample issue")
    print("  find ./mirror/github -name '*.json'")
    print("Ctrl-C stops it; the data stay.", flush=True)
