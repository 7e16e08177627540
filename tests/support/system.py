"""A local system for tests: in a data directory of its own, on free ports, every process ended by its pid."""

import itertools
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from relayfile.clock import SystemClock
from relayfile.local.layout import Layout
from relayfile.local.system import LocalSystem, choose_ports, local_system, running
from relayfile.placement import node_of, shard_of

NODES = 2
QUIET = {"RELAYFILE_LOG_LEVEL": "warning"}


def build_system(root: Path, *, nodes: int = NODES, overrides: Mapping[str, str] | None = None) -> LocalSystem:
    """The processes of a system, none started. The same `root` again is the same data on other ports."""
    layout = Layout(root)
    count = layout.create(nodes)
    return local_system(layout, choose_ports(count, usual=False), SystemClock(), {**QUIET, **(overrides or {})})


@asynccontextmanager
async def started_system(
    root: Path, *, nodes: int = NODES, overrides: Mapping[str, str] | None = None, only: frozenset[str] | None = None
) -> AsyncIterator[LocalSystem]:
    """A running system; with `only`, just the processes of these subcommands (`store`, `ingest`, `syncd`)."""
    system = build_system(root, nodes=nodes, overrides=overrides)
    if only is not None:
        for name in [name for name, process in system.processes.items() if process.command.subcommand not in only]:
            del system.processes[name]
    async with running(system):
        yield system


def owner_index(workspace: str, nodes: int = NODES) -> int:
    """The node that owns a workspace."""
    return int(node_of(shard_of(workspace), nodes))


def workspace_on(node_index: int, prefix: str, nodes: int = NODES) -> str:
    """A workspace name that belongs to a node."""
    names = (f"{prefix}-{number}" for number in itertools.count())
    return next(name for name in names if owner_index(name, nodes) == node_index)
