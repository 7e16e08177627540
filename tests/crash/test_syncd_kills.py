"""kill -9 of a real syncd at each of its fault points: nothing half-written is seen, and it ends digest-equal."""

import asyncio
import pathlib
import signal

import pytest

from tests.crash.syncd import READY_TIMEOUT_S, Syncd, status
from tests.fakes.mirror import tree_of
from tests.fakes.registry import contents, until
from tests.fakes.store import FakeStore

KILLS = [
    pytest.param("syncd.stage.after_write_before_journal:3", id="written", marks=pytest.mark.full),
    pytest.param("syncd.journal.after_commit:3", id="while-staging"),
    pytest.param("syncd.apply.after_rename_before_journal:1", id="placed"),
    pytest.param("syncd.stage.before_barrier", id="staged", marks=pytest.mark.full),
    pytest.param("syncd.stage.after_barrier_before_rename", id="durable", marks=pytest.mark.full),
    pytest.param("syncd.apply.after_rename_before_journal:2", id="removed", marks=pytest.mark.full),
    pytest.param("syncd.apply.after_rename_before_journal:3", id="replaced", marks=pytest.mark.full),
]


@pytest.mark.parametrize("fault", KILLS)
async def test_a_killed_mirror_ends_exact(tmp_path: pathlib.Path, fault: str) -> None:
    store = FakeStore()
    store.fill({f"/d{index % 3}/{index:05}": f"{index}:".encode() + bytes(2_000) for index in range(4_000)})
    store.put("/top", "1")
    versions = {path: {file.content} for path, file in store.files.items()}
    async with store.served() as address:
        syncd = Syncd(tmp_path, address, fault)
        async with syncd.running() as process:
            await syncd.add_mirror()
            if fault.startswith("syncd.apply") and not fault.endswith(":1"):
                await until(lambda: status(tmp_path).get("state") == "following", READY_TIMEOUT_S)
                store.delete("/d1/00001")
                store.put("/top", "2")
                store.put("/new/file", "3")
                versions |= {"/top": {b"1", b"2"}, "/new/file": {b"3"}}
                await store.notify()
            async with asyncio.timeout(READY_TIMEOUT_S):
                assert await process.wait() == -signal.SIGKILL
        for path, content in tree_of(tmp_path).items():
            assert content in versions[path], f"{path} is half written"
        store.put("/while/dead", "4")
        async with Syncd(tmp_path, address).running():
            await until(
                lambda: (
                    status(tmp_path).get("verdict") == "exact" and status(tmp_path).get("revision") == store.revision
                ),
                READY_TIMEOUT_S,
            )
        assert tree_of(tmp_path) == contents(store)
    if fault.startswith("syncd.journal"):
        assert len(store.exports_after) == 2
        resumed_at = sorted(store.files).index(store.exports_after[1])
        assert resumed_at > 500, "what was staged and journalled is not fetched again"
