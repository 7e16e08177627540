"""`relayfile watch`: what happens in a workspace, while it happens."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from relayfile.cli.running_system import DATA_DIR, JSON_LINES, with_client
from relayfile.cli.shown import value_json

if TYPE_CHECKING:
    from relayfile.client import Client, Event


def watch(
    workspace: str = typer.Argument(help="The workspace."),
    globs: list[str] = typer.Argument(None, metavar="[GLOB]...", help="Only these paths: * in a name, ** over names."),
    provider: list[str] = typer.Option((), "--provider", help="Only of this provider; may be repeated."),
    after: int | None = typer.Option(
        None, "--after", min=0, help="Also what is kept after this revision; 0: all of it."
    ),
    count: int = typer.Option(0, "--count", min=0, help="End after so many events; 0: never."),
    json_lines: bool = JSON_LINES,
    data_dir: Path = DATA_DIR,
) -> None:
    """Show events as they are committed, until Ctrl-C. It survives restarts of the system."""

    async def work(client: "Client") -> None:
        from relayfile.client import Cursor, EventFilter

        chosen = EventFilter(path_globs=tuple(globs or ()), providers=tuple(provider))
        cursor = None if after is None else Cursor(after, "")
        seen = 0
        async with client.workspace(workspace).events.watch(cursor, chosen) as events:
            async for event in events:
                print(value_json(event) if json_lines else _line(event), flush=True)
                seen += 1
                if seen == count:
                    return

    with_client(data_dir, work)


def _line(event: "Event") -> str:
    where = event.path
    if event.moved_to:
        where += f" -> {event.moved_to}"
    if event.moved_from:
        where += f" <- {event.moved_from}"
    by = event.provider or event.origin.name.lower()
    time = event.event_time.strftime("%H:%M:%SZ")
    return f"{event.revision}  {time}  {event.type.name.lower().replace('_', '.', 1)}  {by}  {where}"
