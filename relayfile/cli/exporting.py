"""`relayfile export`: a subtree as a tar or as JSON lines, to standard output or into a file."""

import asyncio
import os
import sys
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from relayfile.cli.running_system import DATA_DIR

if TYPE_CHECKING:
    from relayfile.v1 import file_pb2

PARTIAL_SUFFIX = ".partial"


class Format(Enum):
    """How an export is packed."""

    TAR = "tar"
    JSONL = "jsonl"


def export(
    workspace: str = typer.Argument(help="The workspace."),
    path: str = typer.Argument("/", help="The directory, or a file."),
    packing: Format = typer.Option(Format.TAR, "--format", help="A tar, or one JSON object per line."),
    output: Path | None = typer.Option(
        None, "--output", "-o", help="Write to this file; it appears only when it is whole.", dir_okay=False
    ),
    force: bool = typer.Option(False, "--force", help="Replace the file if it exists."),
    min_revision: int = typer.Option(0, "--min-revision", min=0, help="Wait until the workspace has this revision."),
    data_dir: Path = DATA_DIR,
) -> None:
    """Write a subtree to standard output, or into a file: a tar (extract it with `tar -x`), or JSON lines.

    Exit code 1 when nothing is there; then no file is made.
    """
    from relayfile.v1 import file_pb2

    number = file_pb2.EXPORT_FORMAT_TAR if packing is Format.TAR else file_pb2.EXPORT_FORMAT_JSON_LINES
    start = file_pb2.ExportStart(workspace_id=workspace, path=path, format=number, min_revision=min_revision)
    if output is None:
        if packing is Format.TAR and sys.stdout.isatty():
            raise typer.BadParameter("a tar is not for a terminal: send it to a file or a pipe, or name --output")
        end = asyncio.run(_receive(start, data_dir, sys.stdout.buffer.write))
        sys.stdout.buffer.flush()
    else:
        if output.exists() and not force:
            raise typer.BadParameter(f"{output} exists; --force replaces it")
        end = _into(output, start, data_dir)
    print(f"{end.file_count} files, {end.total_bytes} bytes, at revision {end.revision}", file=sys.stderr)


def _into(output: Path, start: "file_pb2.ExportStart", data_dir: Path) -> "file_pb2.ExportEnd":
    """Write beside the file, and put it in its place when all is there."""
    partial = output.with_name(output.name + PARTIAL_SUFFIX)
    try:
        with partial.open("wb") as file:
            end = asyncio.run(_receive(start, data_dir, file.write))
            file.flush()
            os.fsync(file.fileno())
        partial.replace(output)
    finally:
        partial.unlink(missing_ok=True)
    return end


async def _receive(
    start: "file_pb2.ExportStart", data_dir: Path, write: Callable[[bytes], int]
) -> "file_pb2.ExportEnd":
    """Hand every piece to `write`, one at a time, and return what the stream says of itself at its end."""
    from relayfile.cli.connection import connect, open_channel
    from relayfile.errors import FileNotFound, PeerFailed
    from relayfile.v1 import file_pb2, file_pb2_grpc

    connection = connect(data_dir)
    async with open_channel(connection.store) as channel:
        stub: file_pb2_grpc.FileServiceAsyncStub = file_pb2_grpc.FileServiceStub(channel)
        request = file_pb2.ExportTreeRequest(start=start, have_complete=True)
        async for answer in stub.ExportTree(iter((request,)), metadata=connection.credentials):
            if answer.chunk.data:
                write(answer.chunk.data)
            if answer.HasField("end"):
                if not answer.end.file_count and start.path.strip("/"):  # a directory is there while it has files
                    raise FileNotFound(path=start.path)
                return answer.end
    raise PeerFailed(code="OK", detail="the export ended before its end")
