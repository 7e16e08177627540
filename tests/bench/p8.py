"""P8: a signed webhook over HTTP, accepted, to its bytes in the mirrored file, beside 100,000 quiet files."""

import asyncio
import contextlib
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from relayfile.local.delivery import Sender
from relayfile.syncd import descriptors
from relayfile.syncd.inotify import Inotify
from tests.bench.harness import Bench
from tests.bench.mirrored import create_mirror, pull, seed_tree
from tests.bench.result import Figure, Result
from tests.support.webhooks import Issue

SAMPLES = 200
PAUSE_S = 0.02
SAMPLE_TIMEOUT_S = 10.0


async def run(bench: Bench) -> Result:
    files = 20_000 if bench.quick else 100_000
    async with bench.system() as (system, client):
        workspace = await seed_tree(client, "bench-", files)
        secret = system.layout.webhook_secret(workspace, "github")
        url = f"http://127.0.0.1:{system.ports.ingest_http}"
        async with Sender(url) as sender:
            for number in range(SAMPLES):
                answer = await sender.post(Issue(number, "before").delivery(workspace, secret))
                assert answer.status == 200, answer
            await client.settled(workspace, files + SAMPLES)
            target = bench.folder / "mirror"
            target.mkdir()
            await pull(client, await create_mirror(client, workspace, target, follow=True))
            # What was just created is quiet again when its window is over: an edit then goes out at once.
            await asyncio.sleep(4)
            folder = target / Path(Issue(0, "").path).parent.relative_to("/")
            from_accepted, from_sent = await samples(sender, workspace, secret, folder)
    return Result(
        "P8",
        [
            Figure("p50 from accepted", percentile(from_accepted, 50), "ms", 25, "at most"),
            Figure("p99 from accepted", percentile(from_accepted, 99), "ms", 150, "at most"),
            Figure("p50 from sent", percentile(from_sent, 50), "ms"),
            Figure("p99 from sent", percentile(from_sent, 99), "ms"),
        ],
        bench.quick,
        {**bench.detail, "files": files, "samples": SAMPLES},
    )


async def samples(sender: Sender, workspace: str, secret: str, folder: Path) -> tuple[list[float], list[float]]:
    """Milliseconds from the answer, and from the request, to the new bytes, for one edit of each issue."""
    from_accepted, from_sent = [], []
    with contextlib.closing(Inotify()) as inotify, watched(inotify, folder) as news:
        for number in range(SAMPLES):
            issue = Issue(number, "after", updated_us=1_770_000_000_000_000)
            path = folder / Path(issue.path).name
            delivery = issue.delivery(workspace, secret)
            async with asyncio.timeout(SAMPLE_TIMEOUT_S):
                seen = asyncio.ensure_future(until_holds(inotify, news, path, "after"))
                start = time.perf_counter()
                answer = await sender.post(delivery)
                accepted = time.perf_counter()
                assert answer.status == 200, answer
                on_disk = await seen
            from_accepted.append(max(0.0, on_disk - accepted) * 1000)
            from_sent.append((on_disk - start) * 1000)
            await asyncio.sleep(PAUSE_S)
    return from_accepted, from_sent


@contextmanager
def watched(inotify: Inotify, folder: Path) -> Iterator[asyncio.Event]:
    """Set when there is news of the folder."""
    loop, news = asyncio.get_running_loop(), asyncio.Event()
    directory = descriptors.open_root(str(folder))
    try:
        inotify.add(directory)
    finally:
        os.close(directory)
    loop.add_reader(inotify.fd, news.set)
    try:
        yield news
    finally:
        loop.remove_reader(inotify.fd)


async def until_holds(inotify: Inotify, news: asyncio.Event, path: Path, title: str) -> float:
    """When the file at `path` had the title."""
    while True:
        await news.wait()
        news.clear()
        told = any(each.name == path.name for each in inotify.read())
        if told and json.loads(path.read_bytes())["title"] == title:
            return time.perf_counter()


def percentile(values: list[float], percent: int) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]
