"""A local system for tests: in a data directory of its own, on free ports, every process ended by its pid."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from relayfile.clock import SystemClock
from relayfile.local.layout import Layout
from relayfile.local.system import LocalSystem, choose_ports, local_system, running

QUIET = {"RELAYFILE_LOG_LEVEL": "warning"}


def build_system(root: Path, *, nodes: int = 2, overrides: Mapping[str, str] | None = None) -> LocalSystem:
    """The processes of a system, none started. The same `root` again is the same data on other ports."""
    layout = Layout(root)
    count = layout.create(nodes)
    return local_system(layout, choose_ports(count, usual=False), SystemClock(), {**QUIET, **(overrides or {})})


@asynccontextmanager
async def started_system(
    root: Path, *, nodes: int = 2, overrides: Mapping[str, str] | None = None, only: frozenset[str] | None = None
) -> AsyncIterator[LocalSystem]:
    """A running system; with `only`, just the processes of these subcommands (`store`, `ingest`, `syncd`)."""
    system = build_system(root, nodes=nodes, overrides=overrides)
    if only is not None:
        for name in [name for name, process in system.processes.items() if process.command.subcommand not in only]:
            del system.processes[name]
    async with running(system):
        yield system
