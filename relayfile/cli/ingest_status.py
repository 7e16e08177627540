"""`relayfile status | rejected`: what became of the deliveries, and which were refused."""

from collections.abc import Awaitable, Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from relayfile.cli.refusal import explained
from relayfile.cli.running_system import DATA_DIR, JSON_LINES, ask
from relayfile.cli.shown import as_json, moment
from relayfile.cli.table import table

if TYPE_CHECKING:
    from relayfile.cli.connection import Credentials
    from relayfile.v1.ingest_pb2 import (
        GetIngestStatusRequest,
        GetIngestStatusResponse,
        ProviderStatus,
        RejectedRequest,
        StatusPart,
    )
    from relayfile.v1.ingest_pb2_grpc import IngestServiceAsyncStub

WORKSPACE = typer.Argument("", help="The workspace; without it all of them together.")
AS_JSON = typer.Option(False, "--json", help="One JSON object, for machines.")
_OUTCOMES = ["applied", "coalesced", "duplicate", "stale", "suppressed", "unchanged", "ignored", "dead_lettered"]


class Profile(StrEnum):
    """Named limits of health."""

    STRICT = "strict"
    BALANCED = "balanced"
    RELAXED = "relaxed"


def status(
    workspace: str = WORKSPACE,
    provider: str = typer.Option("", "--provider", help="Only this provider."),
    profile: Profile = typer.Option(
        Profile.BALANCED,
        "--profile",
        help="strict: lagging over 10 s, any dead letter is an error; balanced: 30 s, 1 %; relaxed: 5 min, 10 %.",
    ),
    lag_max: str = typer.Option("", "--lag-max", help="A limit of your own, such as 45s: older is lagging."),
    dead_lettered_max: float | None = typer.Option(
        None,
        "--dead-lettered-max",
        min=0.0,
        max=1.0,
        help="A limit of your own, such as 0.05: more dead letters among all outcomes are an error.",
    ),
    check: bool = typer.Option(False, "--check", help="Exit with 1 unless every provider is healthy."),
    in_json: bool = AS_JSON,
    data_dir: Path = DATA_DIR,
) -> None:
    """Say what became of the deliveries of each provider, what is still pending, and whether it is healthy."""
    from relayfile.v1 import ingest_pb2

    request = ingest_pb2.GetIngestStatusRequest(
        workspace_id=workspace,
        provider=provider,
        alert_profile=ingest_pb2.AlertProfile.Value(f"ALERT_PROFILE_{profile.name}"),
    )
    if lag_max or dead_lettered_max is not None:
        _own_limits(request, profile, lag_max, dead_lettered_max)

    async def work(stub: "IngestServiceAsyncStub", shown: "Credentials") -> None:
        answer = await stub.GetIngestStatus(request, metadata=shown)
        print(as_json(answer, zeros=True) if in_json else _status_text(answer, workspace))
        healthy = all(each.health == ingest_pb2.PROVIDER_HEALTH_HEALTHY for each in answer.providers)
        if check and not (healthy and not any(part.missing_reason for part in answer.parts)):
            raise typer.Exit(1)

    with_ingest(data_dir, work)


def rejected(
    workspace: str = WORKSPACE,
    most: int = typer.Option(20, "--max", min=1, max=100_000, help="Show so many at most."),
    json_lines: bool = JSON_LINES,
    data_dir: Path = DATA_DIR,
) -> None:
    """List the requests that ingest refused last, newest first: when, whose, why. Each ingest process has its own."""

    async def work(stub: "IngestServiceAsyncStub", shown: "Credentials") -> None:
        from relayfile.v1 import ingest_pb2

        token, found = "", list[ingest_pb2.RejectedRequest]()
        while len(found) < most:
            page = await stub.ListRejectedRequests(
                ingest_pb2.ListRejectedRequestsRequest(
                    workspace_id=workspace, page_size=most - len(found), page_token=token
                ),
                metadata=shown,
            )
            found += page.requests
            if not (token := page.next_page_token):
                break
        if json_lines:
            for each in found:
                print(as_json(each, zeros=True))
        else:
            print(table(("TIME", "STATUS", "REASON", "WORKSPACE", "PROVIDER", "BYTES"), [_row(each) for each in found]))
            if ways_out := explained(each.reason for each in found):
                print(f"\n{ways_out}")

    with_ingest(data_dir, work)


def _row(each: "RejectedRequest") -> tuple[object, ...]:
    when = moment(each.reject_time.ToMicroseconds())
    return when, each.http_status or "grpc", each.reason, each.workspace_id, each.provider, each.body_bytes


def _own_limits(
    request: "GetIngestStatusRequest", profile: Profile, lag_max: str, dead_lettered_max: float | None
) -> None:
    """Those of the profile, but for what is given."""
    from relayfile import alerts
    from relayfile.settings.definition import parse_duration
    from relayfile.v1 import ingest_pb2

    named = {Profile.STRICT: alerts.STRICT, Profile.BALANCED: alerts.BALANCED, Profile.RELAXED: alerts.RELAXED}[profile]
    request.alert_profile = ingest_pb2.ALERT_PROFILE_CUSTOM
    try:
        lag_max_s = parse_duration(lag_max) if lag_max else named.lag_max_s
    except ValueError as error:
        raise typer.BadParameter(f"{lag_max!r} {error}", param_hint="--lag-max") from None
    request.custom_limits.lag_max.FromMilliseconds(round(lag_max_s * 1000))
    ratio = named.dead_lettered_ratio_max if dead_lettered_max is None else dead_lettered_max
    request.custom_limits.dead_lettered_ratio_max = ratio


def with_ingest(data_dir: Path, work: Callable[["IngestServiceAsyncStub", "Credentials"], Awaitable[Any]]) -> None:
    """Run `work` with the ingest process of the running system, and the credentials to show it."""
    from relayfile.v1.ingest_pb2_grpc import IngestServiceStub

    ask(data_dir, lambda system: system.ingest_grpc, lambda channel, shown: work(IngestServiceStub(channel), shown))


def _status_text(answer: "GetIngestStatusResponse", workspace: str) -> str:
    headings = ("PROVIDER", "HEALTH", "ACCEPTED", "PENDING", "OLDEST", "REFUSED", "OUTCOMES", "FAILURES")
    rows = [_provider_row(each) for each in answer.providers]
    spool = f"spool {answer.spool_bytes:,} of {answer.spool_bytes_max:,} bytes, {answer.queued_objects} objects held"
    lines = [table(headings, rows) if rows else "no deliveries yet", spool, *map(_part_line, answer.parts)]
    return "\n".join([*lines, *_next_steps(answer, workspace)])


def _next_steps(answer: "GetIngestStatusResponse", workspace: str) -> list[str]:
    """The commands that say more about what did not go well."""
    steps = []
    if any(each.dead_lettered for each in answer.providers):
        steps.append(f"what could not be processed: relayfile dead-letters list {workspace or 'WORKSPACE'}")
    if any(each.refused for each in answer.providers):
        steps.append(f"what was refused, and why: relayfile rejected {workspace}".rstrip())
    return steps


def _provider_row(status: "ProviderStatus") -> tuple[object, ...]:
    from relayfile.v1 import ingest_pb2

    health = ingest_pb2.ProviderHealth.Name(status.health).removeprefix("PROVIDER_HEALTH_").lower()
    counted = ((name.replace("_", " "), getattr(status, name)) for name in _OUTCOMES)
    return (
        status.provider,
        f"{health} (paused)" if status.paused else health,
        status.accepted,
        status.pending,
        f"{_seconds(status.oldest_pending_age):.0f}s" if status.pending else "-",
        status.refused,
        ", ".join(f"{count} {name}" for name, count in counted if count) or "-",
        ", ".join(f"{count} {reason}" for reason, count in sorted(status.failure_reasons.items())) or "-",
    )


def _part_line(part: "StatusPart") -> str:
    if part.missing_reason:
        return f"{part.source}: no answer ({part.missing_reason})"
    return f"{part.source}: {_seconds(part.age):.0f}s ago" + (f", {part.pending} pending" if part.pending else "")


def _seconds(duration: Any) -> float:
    seconds: float = duration.seconds + duration.nanos / 1e9
    return seconds
