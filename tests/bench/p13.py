"""P13: `ListTree` of 100,000 entries, page after page, and one page of 5,000 in the middle."""

import statistics
import time

from relayfile.v1 import file_pb2
from tests.bench.harness import Bench
from tests.bench.million import million
from tests.bench.result import Figure, Result
from tests.support.client import Client

ENTRIES = 100_000
PAGE = 5_000
ROUNDS = 5
PATH = "/github/repos/acme"


async def run(bench: Bench) -> Result:
    filled = await million(bench)
    entries = 40_000 if bench.quick else ENTRIES
    all_s: list[float] = []
    page_ms: list[float] = []
    async with bench.system(only=frozenset({"store"}), data=filled.root) as (_, client):
        for _ in range(ROUNDS):
            seconds, tokens = await pages(client, filled.workspaces[0], entries)
            all_s.append(seconds)
            seconds, _ = await pages(client, filled.workspaces[0], PAGE, tokens[len(tokens) // 2])
            page_ms.append(seconds * 1000)
    return Result(
        "P13",
        [
            Figure("all pages", statistics.median(all_s), "s", 2, "at most", goal=1),
            Figure("a page in the middle", statistics.median(page_ms), "ms", 80, "at most"),
        ],
        bench.quick,
        {**bench.detail, "entries": entries, "all_s": all_s, "page_ms": page_ms, "files": filled.files},
        scale_only=bench.quick,
    )


async def pages(client: Client, workspace: str, entries: int, token: str = "") -> tuple[float, list[str]]:
    """(seconds until so many entries were there, the tokens on the way)."""
    request = file_pb2.ListTreeRequest(workspace_id=workspace, path=PATH, page_size=PAGE, page_token=token)
    started = time.perf_counter()
    count = 0
    tokens: list[str] = []
    call = client.files().ListTree(request, metadata=client.metadata)
    async for page in call:
        count += len(page.entries)
        tokens.append(page.page_token)
        if count >= entries:
            break
    seconds = time.perf_counter() - started
    call.cancel()
    assert count >= entries, count
    return seconds, tokens
