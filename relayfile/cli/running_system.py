"""What the commands that ask a running system have in common: the options that several take, and the call.

Owns that a command opens one channel and closes it. Refuses to know services: each group of commands has its own.
"""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import typer

if TYPE_CHECKING:
    import grpc.aio

    from relayfile.cli.connection import Connection, Credentials
    from relayfile.client import Client

DATA_DIR: Final[Path] = typer.Option(
    Path("relayfile-data"), "--data-dir", envvar="RELAYFILE_DATA_DIR", help="Data directory of the running system."
)
JSON_LINES: Final[bool] = typer.Option(False, "--json", help="JSON lines, for machines.")
INTERRUPTED: Final = 130
"""What shells say of a command that was ended by Ctrl-C."""
REQUEST_ID: Final[str] = typer.Option("", "--request-id", help="Makes a repeat harmless for at least 7 days.")


def ask(
    data_dir: Path,
    process: "Callable[[Connection], str]",
    work: "Callable[[grpc.aio.Channel, Credentials], Awaitable[None]]",
) -> None:
    """Run ``work`` with a channel to a process of the running system, and the credentials to show on it.

    ``process`` says which one. `StartRefused` when there is no running system.
    """

    async def with_channel() -> None:
        from relayfile.cli.connection import connect, open_channel

        connection = connect(data_dir)
        async with open_channel(process(connection)) as channel:
            await work(channel, connection.credentials)

    asyncio.run(with_channel())


def with_client(data_dir: Path, work: "Callable[[Client], Awaitable[None]]") -> None:
    """Run ``work`` with the Python client of the running system. `StartRefused` when there is none.

    Interrupted by Ctrl-C it ends quietly, with the exit code of that.
    """

    async def connected() -> None:
        from relayfile.cli.connection import connect
        from relayfile.client import Client
        from relayfile.errors import WorkspaceDeleted, WorkspaceNotFound
        from relayfile.settings import TlsSettings, load
        from relayfile.tls import channel_credentials

        connection = connect(data_dir)
        tls = channel_credentials(load(TlsSettings))
        async with Client(connection.store, connection.token, tls=tls) as client:
            try:
                await work(client)
            except WorkspaceNotFound as missing:
                if await _is_deleted(client, missing.workspace):
                    raise WorkspaceDeleted(workspace=missing.workspace) from missing
                raise

    try:
        asyncio.run(connected())
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


async def _is_deleted(client: "Client", workspace: str) -> bool:
    """Whether a workspace that is not there has been; False also for who may not ask."""
    from relayfile.errors import RelayfileError

    try:
        async for each in client.workspaces.list(workspace, show_deleted=True):
            if each.workspace_id == workspace:
                return each.delete_time is not None
    except RelayfileError:
        pass  # The error that led here is the one to tell.
    return False
