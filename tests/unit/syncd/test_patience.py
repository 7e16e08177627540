"""A pull has no limit of time or attempts while it gets further, and says clearly that it stalled when it does not."""

import asyncio
import pathlib

import grpc
import pytest

from relayfile.errors import PullStalled, Unavailable
from relayfile.status import CODES
from relayfile.syncd import patience
from relayfile.syncd.progress import Via
from tests.fakes.mirror import tree_of
from tests.fakes.registry import add, contents, quick, serving, until
from tests.fakes.store import FakeStore


@pytest.fixture(autouse=True)
def no_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "_FIRST_DELAY_S", 0.0)


def filled(files: int = 2_000, size: int = 3_000) -> FakeStore:
    store = FakeStore()
    store.fill({f"/f/{index:05}": bytes(size) for index in range(files)})
    return store


async def test_a_pull_that_gets_further_is_never_given_up(tmp_path: pathlib.Path) -> None:
    store = filled(40, 300_000)
    store.knobs.cut_after_messages = 1  # about four files an attempt
    async with store.served() as address, serving(address, tmp_path, quick(tmp_path)) as registry:
        mirror = add(registry, tmp_path, follow=False)
        await mirror.pull(full=False, via=Via.EXPORT)
        assert tree_of(tmp_path) == contents(store)
    assert len(store.exports_after) > patience.ATTEMPTS_WITHOUT_PROGRESS


async def test_a_pull_that_gets_no_further_says_that_it_stalled_and_keeps_what_it_has(tmp_path: pathlib.Path) -> None:
    store = filled()
    async with store.served() as address, serving(address, tmp_path, quick(tmp_path)) as registry:
        mirror = add(registry, tmp_path, follow=False)
        store.knobs.refusal = Unavailable(what="store (it is gone)")
        with pytest.raises(PullStalled, match=r"6 attempts in a row brought nothing.*it is gone") as stalled:
            await mirror.pull(full=False, via=Via.ANY)
        assert mirror.seen.error is stalled.value
        assert (CODES[PullStalled], PullStalled.reason) == (grpc.StatusCode.UNAVAILABLE, "PULL_STALLED")

        store.knobs.refusal = None
        store.knobs.cut_after_messages = 2
        attempts = asyncio.ensure_future(mirror.pull(full=False, via=Via.ANY))
        await until(lambda: bool(store.exports_after))
        store.knobs.cut_after_messages = 0  # the next attempts bring nothing any more
        with pytest.raises(PullStalled):
            await attempts
        store.knobs.cut_after_messages = None
        progress = await mirror.pull(full=False, via=Via.ANY)
        assert (progress.resumed, progress.reused_count > 0) == (True, True)
        assert tree_of(tmp_path) == contents(store)


async def test_bytes_that_lead_to_nothing_are_no_progress(tmp_path: pathlib.Path) -> None:
    store = FakeStore()
    store.put("/large", bytes(3 << 20))
    store.knobs.cut_after_messages = 2  # its head and a piece of it, each time
    async with store.served() as address, serving(address, tmp_path, quick(tmp_path)) as registry:
        mirror = add(registry, tmp_path, follow=False)
        with pytest.raises(PullStalled):
            await mirror.pull(full=False, via=Via.ANY)
        assert len(store.exports_after) == patience.ATTEMPTS_WITHOUT_PROGRESS


async def test_a_stalled_mirror_that_follows_goes_on_when_the_store_is_back(tmp_path: pathlib.Path) -> None:
    store = filled(20)
    async with store.served() as address, serving(address, tmp_path, quick(tmp_path)) as registry:
        store.knobs.refusal = Unavailable(what="store (it is gone)")
        mirror = add(registry, tmp_path)
        await until(lambda: isinstance(mirror.seen.error, PullStalled))
        store.knobs.refusal = None
        await until(lambda: tree_of(tmp_path) == contents(store))
