"""P1a: generic envelopes as signed webhooks over HTTP, 1 KiB, distinct objects, 64 connections."""

import base64
import secrets
from dataclasses import dataclass

from tests.bench.harness import STORE_AND_INGEST, Bench, create_workspaces, run_load, spread, until_ended
from tests.bench.load_http import HttpLoad
from tests.bench.result import Figure, Result

WORKSPACES = 16


async def run(bench: Bench) -> Result:
    return await webhooks(bench, Kind("P1a", "generic", "whsec_" + base64.b64encode(secrets.token_bytes(24)).decode()))


@dataclass(frozen=True, slots=True)
class Kind:
    """What is sent, and what must be reached."""

    id: str
    provider: str
    secret: str
    bar: float = 6_000
    goal: float = 10_000
    payloads: str = ""


async def webhooks(bench: Bench, kind: Kind) -> Result:
    """Signed webhooks as fast as they are answered."""
    seconds = 10.0 if bench.quick else 30.0
    async with bench.system(only=STORE_AND_INGEST) as (system, client):
        names = await create_workspaces(client, "bench-", WORKSPACES)
        for name in names:
            path = system.layout.secrets / name / kind.provider
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(kind.secret + "\n")
        load = HttpLoad(
            host="127.0.0.1",
            port=system.ports.ingest_http,
            workspace_prefix="bench-",
            workspaces=WORKSPACES,
            secret=kind.secret,
            seconds=seconds,
            shape=kind.provider,
            payloads=kind.payloads,
        )
        sent = await run_load(load)
        accepted = int(sent["accepted"])
        # Requests are numbered without gaps as long as all are accepted.
        ended_s, missing = await until_ended(client, spread(accepted, names), timeout_s=30)
    late_s = ended_s - (sent["started_s"] + sent["seconds"])
    refused = sum(count for status, count in sent["by_status"].items() if status != "200")
    return Result(
        kind.id,
        [
            Figure("accepted", accepted / sent["seconds"], "requests/s", kind.bar, goal=kind.goal),
            Figure("p99", sent["p99_ms"], "ms", 100, "at most"),
            Figure("all applied after the end", None if missing else late_s, "s", 5, "at most"),
            Figure("not applied", missing, "changes", 0, "at most"),
            Figure("refused", refused, "requests", 0, "at most"),
        ],
        bench.quick,
        {**bench.detail, "load": sent, "seconds": seconds, "connections": load.connections, "workspaces": WORKSPACES},
    )
