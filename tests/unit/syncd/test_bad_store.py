"""A store that answers garbage, never ends, lies, or no longer knows us: a precise problem, and recovery by itself."""

import pathlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import grpc.aio
import pytest

from relayfile.errors import DataCorrupted, PermissionDenied, RelayfileError, Unauthenticated
from relayfile.syncd.audit import Verdict
from relayfile.syncd.mirror import Mirror
from relayfile.syncd.progress import Progress, Via
from relayfile.syncd.pull import first_pull
from relayfile.syncd.shown import MirrorState
from tests.fakes.mirror import opened, tree_of
from tests.fakes.registry import add, contents, level, problems, quick, serving, until
from tests.fakes.store import FakeStore

FILES = {f"/d{index % 5}/f{index:03}": f"content {index}" for index in range(100)}

EXPIRED = Unauthenticated(why="the token expired")


def filled() -> FakeStore:
    store = FakeStore()
    store.fill(FILES)
    return store


def verdict(mirror: Mirror) -> Verdict:
    assert mirror.seen.audited is not None
    return mirror.seen.audited.result.verdict


@pytest.mark.parametrize("error", [EXPIRED, PermissionDenied(why="the token was revoked")])
async def test_a_token_that_ends_in_the_middle_of_a_first_pull(tmp_path: pathlib.Path, error: RelayfileError) -> None:
    store = FakeStore()
    store.fill({f"/f/{index:05}": bytes(3_000) for index in range(2_000)})
    async with store.served() as address, serving(address, tmp_path, quick(tmp_path)) as registry:
        store.knobs.cut_after_messages, store.knobs.cut_with = 3, error
        mirror = add(registry, tmp_path)
        await until(lambda: mirror.seen.state is MirrorState.DISCONNECTED)
        assert mirror.seen.error is not None
        assert mirror.seen.error.reason == error.reason
        store.knobs.cut_after_messages = None
        await level(mirror, store)
        assert tree_of(tmp_path) == contents(store)
    # What had come before was not fetched again.
    assert any(after for after in store.exports_after)


async def test_a_token_that_ends_while_following_touches_nothing_until_there_is_another(tmp_path: pathlib.Path) -> None:
    store = filled()
    async with store.served() as address, serving(address, tmp_path, quick(tmp_path)) as registry:
        mirror = add(registry, tmp_path)
        await level(mirror, store)
        before = tree_of(tmp_path)
        store.knobs.refusal = EXPIRED
        (tmp_path / "mirror" / "mine").write_text("mine")
        store.put("/d0/f000", "changed")
        store.delete("/d1/f001")
        await store.notify()
        await until(lambda: mirror.seen.state is MirrorState.DISCONNECTED)
        assert mirror.seen.error is not None
        assert mirror.seen.error.reason == EXPIRED.reason
        assert tree_of(tmp_path) == {**before, "/mine": b"mine"}
        store.knobs.refusal = None
        await level(mirror, store)
        assert tree_of(tmp_path) == {**contents(store), "/mine": b"mine"}


@pytest.mark.parametrize("knob", ["endless", "empty_chunks"])
@pytest.mark.parametrize("via", [Via.EXPORT, Via.TREE])
async def test_a_store_whose_messages_never_end_is_told_from_a_slow_one(
    tmp_path: pathlib.Path, via: Via, knob: str
) -> None:
    store = filled()
    setattr(store.knobs, knob, True)
    async with store.served() as address, opened(address, tmp_path) as mirror:
        with pytest.raises(DataCorrupted, match="nothing in"):
            await first_pull(mirror, Progress(0.0), via)
        setattr(store.knobs, knob, False)
        await first_pull(mirror, Progress(0.0), via)
    assert tree_of(tmp_path) == contents(store)


async def test_pages_of_events_that_never_end_stop_the_pull_and_not_for_ever(tmp_path: pathlib.Path) -> None:
    store = filled()
    async with store.served() as address, serving(address, tmp_path, quick(tmp_path)) as registry:
        mirror = add(registry, tmp_path)
        await level(mirror, store)
        store.knobs.endless = True
        store.knobs.refusal = EXPIRED  # ends the stream, so that it catches up by pages
        await store.notify()
        await until(lambda: mirror.seen.state is MirrorState.DISCONNECTED)
        store.knobs.refusal = None
        store.put("/late", "late")
        await until(lambda: mirror.seen.error is not None and mirror.seen.error.reason == "DATA_CORRUPTED")
        store.knobs.endless = False
        await level(mirror, store)
        assert tree_of(tmp_path) == contents(store)


async def test_files_that_nobody_asked_for_are_not_written(tmp_path: pathlib.Path) -> None:
    store = filled()
    async with store.served() as address, opened(address, tmp_path) as mirror:
        store.knobs.unasked = "/d0/f000"
        with pytest.raises(DataCorrupted, match="nobody asked"):
            await first_pull(mirror, Progress(0.0), Via.TREE)
        store.knobs.unasked = ""
        await first_pull(mirror, Progress(0.0), Via.TREE)
    assert tree_of(tmp_path) == contents(store)


async def test_wrong_hashes_everywhere_write_nothing_and_heal(tmp_path: pathlib.Path) -> None:
    store = filled()
    store.knobs.garbage = set(FILES)
    async with store.served() as address, serving(address, tmp_path, quick(tmp_path)) as registry:
        mirror = add(registry, tmp_path)
        await level(mirror, store)
        assert tree_of(tmp_path) == {}
        assert problems(mirror) == dict.fromkeys(FILES, "HASH_MISMATCH")
        store.knobs.garbage = set()
        await until(lambda: tree_of(tmp_path) == contents(store))
        await until(lambda: problems(mirror) == {})


async def test_a_digest_that_lies_deletes_nothing(tmp_path: pathlib.Path) -> None:
    store = filled()
    async with store.served() as address, serving(address, tmp_path, quick(tmp_path)) as registry:
        mirror = add(registry, tmp_path)
        await level(mirror, store)
        store.knobs.empty_digest = True
        store.put("/d0/f000", "changed")
        await level(mirror, store)
        assert verdict(mirror) is Verdict.DIFFERENT
        assert tree_of(tmp_path) == contents(store)
        store.knobs.empty_digest = False
        store.put("/d0/f000", "changed again")
        await level(mirror, store)
        await until(lambda: verdict(mirror) is Verdict.EXACT)


@asynccontextmanager
async def garbled() -> AsyncIterator[str]:
    """A server that answers every call with bytes that are no message."""
    answer = b"\xff\xff\xff\xffthis is no message"

    async def stream(request: bytes, context: object) -> AsyncIterator[bytes]:
        yield answer

    async def unary(request: bytes, context: object) -> bytes:
        return answer

    class Handler(grpc.GenericRpcHandler):
        def service(self, details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[bytes, bytes]":
            method = details.method.rpartition("/")[2]
            if method in ("ExportTree", "ReadFiles"):
                return grpc.stream_stream_rpc_method_handler(stream)
            if method in ("ListTree", "WatchEvents"):
                return grpc.unary_stream_rpc_method_handler(stream)
            return grpc.unary_unary_rpc_method_handler(unary)

    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((Handler(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


async def test_bytes_that_are_no_messages_are_an_error_and_not_the_end(tmp_path: pathlib.Path) -> None:
    async with garbled() as address, serving(address, tmp_path, quick(tmp_path)) as registry:
        mirror = add(registry, tmp_path)
        (tmp_path / "mirror" / "mine").write_text("mine")
        await until(lambda: mirror.seen.state is MirrorState.DISCONNECTED)
        assert "no message of this API" in str(mirror.seen.error)
    assert tree_of(tmp_path) == {"/mine": b"mine"}


async def test_garbage_after_a_good_pull_leaves_the_tree_alone(tmp_path: pathlib.Path) -> None:
    store = filled()
    async with store.served() as address, serving(address, tmp_path, quick(tmp_path)) as registry:
        mirror = add(registry, tmp_path)
        await level(mirror, store)
    async with garbled() as address, serving(address, tmp_path, quick(tmp_path)) as registry:
        (mirror,) = registry
        await until(lambda: mirror.seen.state is MirrorState.DISCONNECTED)
    assert tree_of(tmp_path) == contents(store)
    store.put("/late", "late")
    async with store.served() as address, serving(address, tmp_path, quick(tmp_path)) as registry:
        (mirror,) = registry
        await level(mirror, store)
        assert tree_of(tmp_path) == contents(store)
