"""`relayfile dead-letters`: what could not be processed, and what is done about it."""

import json
import sys
from collections.abc import Awaitable, Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from relayfile.cli.running_system import DATA_DIR, JSON_LINES, REQUEST_ID, ask
from relayfile.cli.shown import as_json, moment
from relayfile.cli.table import table

if TYPE_CHECKING:
    from relayfile.cli.connection import Credentials
    from relayfile.clock import Clock
    from relayfile.v1.dead_letter_pb2 import DeadLetter, DeadLetterFilter
    from relayfile.v1.dead_letter_pb2_grpc import DeadLetterServiceAsyncStub

app = typer.Typer(help="What could not be processed: look at it, try it again, put it aside.", no_args_is_help=True)


class Stage(StrEnum):
    """Where processing failed."""

    NORMALISE = "normalise"
    APPLY = "apply"


class State(StrEnum):
    """What is being done about it."""

    PENDING = "pending"
    ACKNOWLEDGED = "acknowledged"
    REPLAYING = "replaying"


WORKSPACE = typer.Argument(help="The workspace; an app's is _app/NAME.")
ID = typer.Argument(metavar="id", help="The dead letter.")
PROVIDER = typer.Option("", "--provider", help="Only of this provider.")
REASON = typer.Option("", "--reason", help="Only with this reason, for example MALFORMED_JSON.")
STAGE = typer.Option(None, "--stage", help="Only of this stage.")
STATE = typer.Option(None, "--state", help="Only in this state.")
SINCE = typer.Option("", "--since", help="Only received since then: a time such as 2026-01-31T12:00:00Z, or 2h ago.")
UNTIL = typer.Option("", "--until", help="Only received before then.")
SHOWN_MAX = 60


@app.command("list")
def list_letters(
    workspace: str = WORKSPACE,
    provider: str = PROVIDER,
    reason: str = REASON,
    stage: Stage | None = STAGE,
    state: State | None = STATE,
    since: str = SINCE,
    until: str = UNTIL,
    most: int = typer.Option(1_000, "--max", min=1, help="Show so many at most."),
    json_lines: bool = JSON_LINES,
    data_dir: Path = DATA_DIR,
) -> None:
    """List the dead letters of a workspace, newest first."""
    chosen = _filter(provider, reason, stage, state, since, until)

    async def work(stub: "DeadLetterServiceAsyncStub", shown: "Credentials") -> None:
        from relayfile.v1 import dead_letter_pb2

        token, found = "", list["DeadLetter"]()
        while True:
            request = dead_letter_pb2.ListDeadLettersRequest(
                workspace_id=workspace, filter=chosen, page_size=min(1_000, most - len(found)), page_token=token
            )
            page = await stub.ListDeadLetters(request, metadata=shown)
            found += page.dead_letters
            token = page.next_page_token
            if not token or len(found) >= most:
                break
        if json_lines:
            for letter in found:
                print(as_json(letter))
            return
        print(table(("ID", "RECEIVED", "PROVIDER", "STAGE", "STATE", "REASON", "TRIES", "ABOUT"), [*map(_row, found)]))
        more = "; more are listed with a larger --max" if token else ""
        print(f"{page.pending_count} pending, {page.total_count} in all{more}")

    _run(data_dir, work)


@app.command()
def get(
    workspace: str = WORKSPACE, dead_letter_id: str = ID, json_lines: bool = JSON_LINES, data_dir: Path = DATA_DIR
) -> None:
    """Describe one dead letter."""

    async def work(stub: "DeadLetterServiceAsyncStub", shown: "Credentials") -> None:
        from relayfile.v1 import dead_letter_pb2

        request = dead_letter_pb2.GetDeadLetterRequest(workspace_id=workspace, dead_letter_id=dead_letter_id)
        answer = await stub.GetDeadLetter(request, metadata=shown)
        if json_lines:
            print(as_json(answer))
            return
        described = json.loads(as_json(answer))
        headers = {f"header {name}": value for name, value in sorted(described.get("headers", {}).items())}
        change = {f"change {name}": value for name, value in described.get("change", {}).items()}
        rows = {**described["dead_letter"], **headers, **change}
        rows["stage"], rows["state"] = (_word(rows[name]) for name in ("stage", "state"))
        print("\n".join(f"{name.replace('_', ' ')}: {value}" for name, value in rows.items()))

    _run(data_dir, work)


@app.command()
def body(
    workspace: str = WORKSPACE,
    dead_letter_id: str = ID,
    output: Path | None = typer.Option(None, "--output", help="Write it to this file.", dir_okay=False),
    data_dir: Path = DATA_DIR,
) -> None:
    """Write what is kept: the request's body as it came, or the content of the change."""

    async def work(stub: "DeadLetterServiceAsyncStub", shown: "Credentials") -> None:
        from relayfile.v1 import dead_letter_pb2

        request = dead_letter_pb2.ReadDeadLetterRequest(workspace_id=workspace, dead_letter_id=dead_letter_id)
        pieces = [message.chunk.data async for message in stub.ReadDeadLetter(request, metadata=shown)]
        if output is not None:
            output.write_bytes(b"".join(pieces))
        else:
            sys.stdout.buffer.write(b"".join(pieces))
            sys.stdout.buffer.flush()

    _run(data_dir, work)


@app.command()
def replay(
    workspace: str = WORKSPACE,
    ids: list[str] = typer.Argument(None, metavar="[id]...", help="The dead letters; none: those that options select."),
    every: bool = typer.Option(False, "--all", help="All pending ones."),
    provider: str = PROVIDER,
    reason: str = REASON,
    stage: Stage | None = STAGE,
    state: State | None = typer.Option(None, "--state", help="Acknowledged ones instead of pending ones."),
    since: str = SINCE,
    until: str = UNTIL,
    most: int = typer.Option(0, "--max", min=0, max=10_000, help="So many at most, oldest first; 0: 1,000."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Only count them."),
    note: str = typer.Option("", "--note", help="Why, for the record of administrative actions."),
    request_id: str = REQUEST_ID,
    json_lines: bool = JSON_LINES,
    data_dir: Path = DATA_DIR,
) -> None:
    """Queue dead letters for another try: changes as they are, requests with the present provider files.

    Exit code 1 when one of the ids is not there.
    """
    chosen = _filter(provider, reason, stage, state, since, until)
    selects = chosen.ByteSize() > 0
    if bool(ids) + every + selects != 1 and not (every and selects):
        raise typer.BadParameter("name dead letters, or select them with options, or say --all")

    async def work(stub: "DeadLetterServiceAsyncStub", shown: "Credentials") -> None:
        from relayfile.v1 import dead_letter_pb2

        request = dead_letter_pb2.ReplayDeadLettersRequest(
            workspace_id=workspace,
            dead_letter_ids=ids or (),
            filter=None if ids else chosen,
            replay_count_max=most,
            validate_only=dry_run,
            reason=note,
            request_id=request_id,
        )
        answer = await stub.ReplayDeadLetters(request, metadata=shown)
        if json_lines:
            print(as_json(answer))
        else:
            print(f"{answer.queued_count} {'would be tried again' if dry_run else 'queued for another try'}")
            if answer.already_replaying_count:
                print(f"{answer.already_replaying_count} are being tried already")
            if answer.remaining_count:
                print(f"{answer.remaining_count} more are selected: repeat the command")
            for missing in answer.missing_dead_letter_ids:
                print(f"{missing} is not there (any more)")
        if answer.missing_dead_letter_ids:
            raise typer.Exit(1)

    _run(data_dir, work)


@app.command()
def acknowledge(
    workspace: str = WORKSPACE,
    dead_letter_id: str = ID,
    reason: str = typer.Option(..., "--reason", help="Why, kept with it and in the record of administrative actions."),
    request_id: str = REQUEST_ID,
    json_lines: bool = JSON_LINES,
    data_dir: Path = DATA_DIR,
) -> None:
    """Put a dead letter aside: it no longer counts as pending, and is removed when it is old enough.

    That is RELAYFILE_DEAD_LETTER_RETENTION of the store after it was made.
    """

    async def work(stub: "DeadLetterServiceAsyncStub", shown: "Credentials") -> None:
        from relayfile.v1 import dead_letter_pb2

        request = dead_letter_pb2.AcknowledgeDeadLetterRequest(
            workspace_id=workspace, dead_letter_id=dead_letter_id, reason=reason, request_id=request_id
        )
        letter = (await stub.AcknowledgeDeadLetter(request, metadata=shown)).dead_letter
        if json_lines:
            print(as_json(letter))
        else:
            print(f"{letter.dead_letter_id} is put aside until {moment(letter.expire_time.ToMicroseconds())}")

    _run(data_dir, work)


def _filter(
    provider: str, reason: str, stage: Stage | None, state: State | None, since: str, until: str
) -> "DeadLetterFilter":
    from relayfile.clock import SystemClock
    from relayfile.v1 import dead_letter_pb2

    chosen = dead_letter_pb2.DeadLetterFilter(provider=provider, reason=reason)
    if stage is not None:
        chosen.stage = dead_letter_pb2.DeadLetterStage.Value(f"DEAD_LETTER_STAGE_{stage.name}")
    if state is not None:
        chosen.state = dead_letter_pb2.DeadLetterState.Value(f"DEAD_LETTER_STATE_{state.name}")
    if since:
        chosen.received_from.FromMicroseconds(moment_of("--since", since, SystemClock()))
    if until:
        chosen.received_before.FromMicroseconds(moment_of("--until", until, SystemClock()))
    return chosen


def moment_of(option: str, text: str, clock: "Clock") -> int:
    """Unix microseconds of a time, or of a duration before now."""
    from datetime import UTC, datetime

    from relayfile.settings.definition import parse_duration

    try:
        return clock.now_us() - round(parse_duration(text) * 1e6)
    except ValueError:
        pass  # it may be a time
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        why = f"{text!r} is neither a time such as 2026-01-31T12:00:00Z nor a duration such as 2h"
        raise typer.BadParameter(why, param_hint=option) from None
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1e6)


def _word(enum_value: str) -> str:
    """`pending` of DEAD_LETTER_STATE_PENDING."""
    return enum_value.rpartition("_")[2].lower()


def _row(letter: "DeadLetter") -> tuple[object, ...]:
    from relayfile.v1 import dead_letter_pb2

    stage = _word(dead_letter_pb2.DeadLetterStage.Name(letter.stage))
    state = _word(dead_letter_pb2.DeadLetterState.Name(letter.state))
    about = letter.path or letter.provider_object_id or letter.event_name or letter.delivery_id
    return (
        letter.dead_letter_id,
        moment(letter.received_at.ToMicroseconds()),
        letter.provider,
        stage,
        state,
        letter.reason,
        letter.attempt_count,
        about if len(about) <= SHOWN_MAX else about[: SHOWN_MAX - 3] + "...",
    )


def _run(data_dir: Path, work: Callable[["DeadLetterServiceAsyncStub", "Credentials"], Awaitable[None]]) -> None:
    from relayfile.v1.dead_letter_pb2_grpc import DeadLetterServiceStub

    ask(data_dir, lambda system: system.store, lambda channel, shown: work(DeadLetterServiceStub(channel), shown))
