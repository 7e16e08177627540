"""P1a: generic envelopes as signed webhooks over HTTP, 1 KiB, distinct objects, 64 connections."""

import base64
import secrets

from tests.bench.harness import STORE_AND_INGEST, Bench, create_workspaces, run_load, spread, until_ended
from tests.bench.load_http import HttpLoad
from tests.bench.result import Figure, Result

WORKSPACES = 16


async def run(bench: Bench) -> Result:
    seconds = 10.0 if bench.quick else 30.0
    async with bench.system(only=STORE_AND_INGEST) as (system, client):
        names = await create_workspaces(client, "bench-", WORKSPACES)
        secret = "whsec_" + base64.b64encode(secrets.token_bytes(24)).decode()
        for name in names:
            path = system.layout.secrets / name / "generic"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(secret + "\n")
        load = HttpLoad(
            host="127.0.0.1",
            port=system.ports.ingest_http,
            workspace_prefix="bench-",
            workspaces=WORKSPACES,
            secret=secret,
            seconds=seconds,
        )
        sent = await run_load(load)
        accepted = int(sent["accepted"])
        # Requests are numbered without gaps as long as all are accepted.
        ended_s, missing = await until_ended(client, spread(accepted, names), timeout_s=30)
    late_s = ended_s - (sent["started_s"] + sent["seconds"])
    refused = sum(count for status, count in sent["by_status"].items() if status != "200")
    return Result(
        "P1a",
        [
            Figure("accepted", accepted / sent["seconds"], "requests/s", 6_000, goal=10_000),
            Figure("p99", sent["p99_ms"], "ms", 100, "at most"),
            Figure("all applied after the end", None if missing else late_s, "s", 5, "at most"),
            Figure("not applied", missing, "changes", 0, "at most"),
            Figure("refused", refused, "requests", 0, "at most"),
        ],
        bench.quick,
        {**bench.detail, "load": sent, "seconds": seconds, "connections": load.connections, "workspaces": WORKSPACES},
    )
