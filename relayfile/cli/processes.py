"""`relayfile store | ingest | syncd`: one process each, configured by its environment.

Settings are read before anything else is imported, so that a bad one is refused at once.
"""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING

import typer

from relayfile.settings import IngestSettings, StoreSettings, SyncdSettings, load

if TYPE_CHECKING:
    from relayfile.lifecycle import Stop

WITH_PARENT = typer.Option(0, "--end-with-parent", hidden=True, help="End when the starting process, of this id, dies.")


def store(parent_pid: int = WITH_PARENT) -> None:
    """Run a store node until it is told to stop (SIGTERM drains, a second one exits at once)."""
    settings = load(StoreSettings)
    from relayfile.store.app import run

    _serve(partial(run, settings), parent_pid=parent_pid)


def ingest(parent_pid: int = WITH_PARENT) -> None:
    """Run an ingest process until it is told to stop. Exit code 3: accepted deliveries are left in its spool."""
    settings = load(IngestSettings)
    from relayfile.ingest.app import run

    _serve(partial(run, settings), parent_pid=parent_pid)


def syncd(parent_pid: int = WITH_PARENT) -> None:
    """Run syncd, which mirrors workspaces to directories, until it is told to stop."""
    settings = load(SyncdSettings)
    from relayfile.syncd.app import run

    _serve(partial(run, settings), parent_pid=parent_pid)


def _serve(main: "Callable[[Stop], Awaitable[int]]", *, parent_pid: int) -> None:
    from relayfile.lifecycle import run_process

    if parent_pid:
        from relayfile.local.process import end_with_parent

        end_with_parent(parent_pid)
    raise typer.Exit(run_process(main))
