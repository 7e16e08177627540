"""`relayfile address`: where a part of the running system listens, for use in other commands."""

from enum import StrEnum
from pathlib import Path

import typer


class Part(StrEnum):
    """A part of the system that listens."""

    STORE = "store"
    INGEST = "ingest"
    INGEST_HTTP = "ingest-http"
    SYNCD = "syncd"


def address(
    part: Part = typer.Argument(help="Which part: gRPC of a store node, of ingest or of syncd; or ingest's HTTP URL."),
    data_dir: Path = typer.Option(
        Path("relayfile-data"), "--data-dir", envvar="RELAYFILE_DATA_DIR", help="Data directory of the running system."
    ),
) -> None:
    """Print the address of a part of the running system."""
    from relayfile.cli.connection import connect

    found = connect(data_dir)
    by_part = {
        Part.STORE: found.store,
        Part.INGEST: found.ingest_grpc,
        Part.INGEST_HTTP: found.ingest_http,
        Part.SYNCD: found.syncd,
    }
    print(by_part[part])
