"""`relayfile spool show | adopt`: what the spool of an ingest process that is gone holds, and sending it on."""

import asyncio
from pathlib import Path

import typer

from relayfile.cli.shown import moment
from relayfile.cli.table import table

EXIT_NOT_EMPTY = 3

app = typer.Typer(help="Spools of ingest processes that are gone.", no_args_is_help=True)
DIRECTORY = typer.Argument(help="The data directory of the process.", exists=True, file_okay=False)


@app.command()
def show(directory: Path = DIRECTORY) -> None:
    """Say what a spool holds: accepted changes without an outcome, by workspace and provider."""
    from relayfile.ingest.spool.adopt import show as read

    found = read(directory)
    rows = [
        (
            each.workspace_id,
            each.provider,
            each.changes,
            moment(each.oldest_us),
        )
        for each in found
    ]
    print(table(("WORKSPACE", "PROVIDER", "CHANGES", "OLDEST"), rows))
    print(f"{sum(each.changes for each in found)} changes")


@app.command()
def adopt(
    directory: Path = DIRECTORY,
    to: list[str] = typer.Option(
        [],
        "--to",
        help="gRPC address of an ingest process that takes them, several times for several; default:"
        " RELAYFILE_INGEST_PEERS, and without it the shards at RELAYFILE_NODES.",
    ),
    timeout: str = typer.Option("5m", "--timeout", help="How long to try."),
) -> None:
    """Send everything that the spool of a dead process holds, and remove what was taken. Exit code 3: some is left."""
    from relayfile.errors import SettingError
    from relayfile.ingest.spool.adopt import adopt as send
    from relayfile.settings import IngestSettings, load
    from relayfile.settings.definition import parse_duration

    settings = load(IngestSettings)
    peers = tuple(to) or settings.ingest_peers
    if not peers and not settings.nodes:
        raise SettingError(
            variable="RELAYFILE_NODES",
            problem="is empty, and no ingest process is named",
            way_out="list the gRPC addresses of the store nodes, or name an ingest process with --to",
        )
    try:
        timeout_s = parse_duration(timeout)
    except ValueError as error:
        raise typer.BadParameter(f"{timeout!r} {error}", param_hint="--timeout") from None
    done = asyncio.run(send(settings, directory, peers, timeout_s))
    print(f"{done.found - done.left} of {done.found} changes taken, {done.left} left in {directory}")
    if done.left:
        raise typer.Exit(EXIT_NOT_EMPTY)
