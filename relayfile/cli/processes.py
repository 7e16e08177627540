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

WITH_PARENT = typer.Option(False, "--end-with-parent", hidden=True, help="End when the starting process dies.")


def store(with_parent: bool = WITH_PARENT) -> None:
    """Run a store node until it is told to stop (SIGTERM drains, a second one exits at once)."""
    settings = load(StoreSettings)
    from relayfile.store.app import run

    _serve(partial(run, settings), with_parent=with_parent)


def ingest(with_parent: bool = WITH_PARENT) -> None:
    """Run an ingest process until it is told to stop. Exit code 3: accepted deliveries are left in its spool."""
    settings = load(IngestSettings)
    from relayfile.ingest.app import run

    _serve(partial(run, settings), with_parent=with_parent)


def syncd(with_parent: bool = WITH_PARENT) -> None:
    """Run syncd, which mirrors workspaces to directories, until it is told to stop."""
    settings = load(SyncdSettings)
    from relayfile.syncd.app import run

    _serve(partial(run, settings), with_parent=with_parent)


def _serve(main: "Callable[[Stop], Awaitable[int]]", *, with_parent: bool) -> None:
    from relayfile.lifecycle import run_process

    if with_parent:
        from relayfile.local.process import end_with_parent

        end_with_parent()
    raise typer.Exit(run_process(main))
