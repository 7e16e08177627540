"""P1b: webhooks as GitHub sends them, 12 KB on average, with its signature and its adapter; else as P1a."""

import secrets
from pathlib import Path

from tests.bench.harness import ROOT, Bench
from tests.bench.p1a import Kind, webhooks
from tests.bench.result import Result

PAYLOADS = ROOT.parent / "shared" / "data" / "github-webhooks"
"""Recorded payloads, where they are at hand; else they are synthesised at the same size."""


async def run(bench: Bench) -> Result:
    folder = PAYLOADS if PAYLOADS.is_dir() else Path()
    bench.detail["payloads"] = "recorded" if folder.name else "synthesised"
    return await webhooks(
        bench, Kind("P1b", "github", secrets.token_hex(20), 1_500, 2_500, str(folder) if folder.name else "")
    )
