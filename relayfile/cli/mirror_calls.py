"""What the commands about mirrors have in common: the call to syncd, and which mirror a directory is."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import typer

from relayfile.cli.running_system import INTERRUPTED, ask
from relayfile.errors import MirrorNotFound

if TYPE_CHECKING:
    from relayfile.cli.connection import Credentials
    from relayfile.v1.mirror_pb2 import Mirror
    from relayfile.v1.mirror_pb2_grpc import MirrorServiceAsyncStub

WHOLE_DIRECTORY: Final[Path] = typer.Argument(help="The mirror's directory.", file_okay=False, show_default=False)
DIRECTORY: Final[Path] = typer.Argument(
    help="The mirror's directory, or one in it.", file_okay=False, show_default=False
)
IN_JSON: Final[bool] = typer.Option(False, "--json", help="One JSON object, for machines.")


def with_mirrors(data_dir: Path, work: "Callable[[MirrorServiceAsyncStub, Credentials], Awaitable[None]]") -> None:
    """Run ``work`` with a stub to the running syncd. Interrupted by Ctrl-C it ends quietly, with that exit code."""
    from relayfile.v1.mirror_pb2_grpc import MirrorServiceStub

    try:
        ask(data_dir, lambda system: system.syncd, lambda channel, shown: work(MirrorServiceStub(channel), shown))
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


async def find(stub: "MirrorServiceAsyncStub", shown: "Credentials", directory: Path) -> "Mirror":
    """The mirror of a directory; ``MirrorNotFound`` when it is in none."""
    from relayfile.v1 import mirror_pb2

    wanted = str(directory.resolve())
    page = await stub.ListMirrors(mirror_pb2.ListMirrorsRequest(directory=wanted), metadata=shown)
    if not page.mirrors:
        raise MirrorNotFound(mirror=wanted)
    return max(page.mirrors, key=lambda mirror: len(mirror.directory))


async def find_root(stub: "MirrorServiceAsyncStub", shown: "Credentials", directory: Path) -> "Mirror":
    """The mirror whose own directory this is. What is done to it is not to be done by naming a part of it."""
    mirror = await find(stub, shown, directory)
    if mirror.directory != (wanted := str(directory.resolve())):
        raise typer.BadParameter(
            f"{wanted} is only a part of the mirror {mirror.directory}; name that", param_hint="DIRECTORY"
        )
    return mirror
