"""`relayfile ops`: edits on their way to providers."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from relayfile.cli.running_system import DATA_DIR, JSON_LINES, with_client
from relayfile.cli.shown import value_json
from relayfile.cli.table import table

if TYPE_CHECKING:
    from relayfile.client import Client, Operation

app = typer.Typer(
    help="Edits on their way to providers: look at them, approve, cancel, try again.", no_args_is_help=True
)
WORKSPACE = typer.Argument(help="The workspace.")
ID = typer.Argument(metavar="id", help="The operation.")
IDS = typer.Argument(None, metavar="[id]...", help="The operations; none: --all of them.")
EVERY = typer.Option(False, "--all", help="All of them.")
REASON = typer.Option("", "--reason", help="Why, for the record of administrative actions.")
PROVIDER = typer.Option((), "--provider", help="Only of this provider; may be repeated.")


class State(StrEnum):
    """Where an operation is in its life."""

    PENDING = "pending"
    CLAIMED = "claimed"
    SUCCEEDED = "succeeded"
    DEAD_LETTERED = "dead_lettered"
    SUPERSEDED = "superseded"
    CANCELED = "canceled"
    QUARANTINED = "quarantined"


@app.command("list")
def list_operations(
    workspace: str = WORKSPACE,
    state: list[State] = typer.Option((), "--state", help="Only in this state; may be repeated."),
    provider: list[str] = PROVIDER,
    path: str = typer.Option("", "--path", help="Only of this file, or below this directory."),
    most: int = typer.Option(1_000, "--max", min=1, help="Show so many at most."),
    json_lines: bool = JSON_LINES,
    data_dir: Path = DATA_DIR,
) -> None:
    """List operations, newest first."""

    async def work(client: "Client") -> None:
        from relayfile.client import OperationState

        found: list[Operation] = []
        more = False
        states = [OperationState[each.name] for each in state]
        async for operation in client.workspace(workspace).operations.list(
            providers=provider, states=states, path=path, page_size=min(most, 1_000)
        ):
            if len(found) == most:
                more = True
                break
            found.append(operation)
        if json_lines:
            for operation in found:
                print(value_json(operation))
            return
        print(table(("ID", "MADE", "PROVIDER", "KIND", "STATE", "TRIES", "PATH"), [*map(_row, found)]))
        if more:
            print("more are listed with a larger --max")

    with_client(data_dir, work)


@app.command()
def show(
    workspace: str = WORKSPACE, operation_id: str = ID, json_lines: bool = JSON_LINES, data_dir: Path = DATA_DIR
) -> None:
    """Describe one operation."""

    async def work(client: "Client") -> None:
        found = await client.workspace(workspace).operations.get(operation_id)
        print(value_json(found) if json_lines else _text(found))

    with_client(data_dir, work)


@app.command()
def content(workspace: str = WORKSPACE, operation_id: str = ID, data_dir: Path = DATA_DIR) -> None:
    """Write the content that an operation brings to its provider to standard output."""

    async def work(client: "Client") -> None:
        sys.stdout.buffer.write(await client.workspace(workspace).operations.content(operation_id))
        sys.stdout.buffer.flush()

    with_client(data_dir, work)


@app.command()
def watch(
    workspace: str = WORKSPACE,
    provider: list[str] = PROVIDER,
    path: str = typer.Option("", "--path", help="Only of this file, or below this directory."),
    json_lines: bool = JSON_LINES,
    data_dir: Path = DATA_DIR,
) -> None:
    """Show what has not ended, then every change, until Ctrl-C."""

    async def work(client: "Client") -> None:
        async for each in client.workspace(workspace).operations.watch(providers=provider, path=path):
            print(value_json(each) if json_lines else "  ".join(map(str, _row(each))), flush=True)

    with_client(data_dir, work)


@app.command()
def replay(workspace: str = WORKSPACE, operation_id: str = ID, reason: str = REASON, data_dir: Path = DATA_DIR) -> None:
    """Queue a dead-lettered operation again."""

    async def work(client: "Client") -> None:
        operation = await client.workspace(workspace).operations.replay(operation_id, reason)
        print(f"{operation.operation_id} is {operation.state.name.lower()}")

    with_client(data_dir, work)


@app.command()
def approve(
    workspace: str = WORKSPACE,
    ids: list[str] = IDS,
    every: bool = EVERY,
    reason: str = REASON,
    data_dir: Path = DATA_DIR,
) -> None:
    """Let quarantined operations go on: unusually many deletes wait for this."""
    _one_of(ids, every)

    async def work(client: "Client") -> None:
        count = await client.workspace(workspace).operations.approve(ids or (), every=every, reason=reason)
        print(f"{count} go on")

    with_client(data_dir, work)


@app.command()
def cancel(
    workspace: str = WORKSPACE,
    ids: list[str] = IDS,
    every: bool = EVERY,
    reason: str = REASON,
    data_dir: Path = DATA_DIR,
) -> None:
    """End operations that nobody has claimed; the files stay as they are."""
    _one_of(ids, every)

    async def work(client: "Client") -> None:
        count = await client.workspace(workspace).operations.cancel(ids or (), every=every, reason=reason)
        print(f"{count} are canceled")

    with_client(data_dir, work)


def _one_of(ids: list[str] | None, every: bool) -> None:
    if bool(ids) == every:
        raise typer.BadParameter("name operations, or say --all")


def _row(operation: "Operation") -> tuple[object, ...]:
    made = operation.create_time.strftime("%Y-%m-%d %H:%M:%SZ")
    kind, state = operation.kind.name.lower(), operation.state.name.lower()
    return operation.operation_id, made, operation.provider, kind, state, operation.attempt_count, operation.path


def _text(operation: "Operation") -> str:
    import json

    fields = json.loads(value_json(operation))
    return "\n".join(f"{name.replace('_', ' ')}: {value}" for name, value in fields.items() if value not in ("", None))
