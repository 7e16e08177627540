"""P16: 30 providers in one workspace, each with a steady trickle and a burst, at default settings."""

import base64
import secrets
from dataclasses import replace

from relayfile.local.system import LocalSystem
from tests.bench.harness import STORE_AND_INGEST, Bench, run_load
from tests.bench.load_paced import PacedLoad
from tests.bench.result import Figure, Result
from tests.support.client import Client

WORKSPACE = "bench-000"
PROVIDERS = 30


async def run(bench: Bench) -> Result:
    seconds, burst_s = (20.0, 1.7) if bench.quick else (120.0, 10.0)
    async with bench.system(only=STORE_AND_INGEST) as (system, client):
        secret = "whsec_" + base64.b64encode(secrets.token_bytes(24)).decode()
        await client.create_workspace(WORKSPACE)
        write_secret(system, WORKSPACE, secret)
        load = replace(
            paced_load(system, client, secret, WORKSPACE),
            providers=PROVIDERS,
            per_s=20.0,
            burst_per_s=300.0,
            burst_s=burst_s,
            seconds=seconds,
            objects=200,
        )
        sent = await run_load(load)
    return Result(
        "P16",
        [
            Figure("refused", sent["refused"], "requests", 0, "at most"),
            Figure("p99 webhook to applied", sent["applied_p99_ms"] / 1000, "s", 4, "at most"),
            Figure("p99 webhook to answer", sent["answered_p99_ms"], "ms"),
            Figure("not applied", sent["missing"], "changes", 0, "at most"),
        ],
        bench.quick,
        {**bench.detail, "load": sent, "providers": PROVIDERS, "seconds": seconds, "burst_s": burst_s},
        scale_only=bench.quick,
    )


def paced_load(
    system: LocalSystem, client: Client, secret: str, workspace: str, *, via: str = "http", tag: str = "a"
) -> PacedLoad:
    """20 changes a second to a system."""
    return PacedLoad(
        http_address=f"127.0.0.1:{system.ports.ingest_http}",
        grpc_address=client.ingest_address,
        store_address=client.node_addresses[0],
        token=client.token,
        secret=secret,
        workspace=workspace,
        via=via,
        tag=tag,
    )


def write_secret(system: LocalSystem, workspace: str, secret: str) -> None:
    """Let generic envelopes be signed with this one."""
    path = system.layout.secrets / workspace / "generic"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(secret + "\n")
