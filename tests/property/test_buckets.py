"""The buckets of wide directories are the sums of their entries, whatever changes while they are built and after."""

import asyncio
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relayfile.model import MemberKind, Semantics
from relayfile.paths import ancestors
from relayfile.store.buckets import BucketBuilder
from relayfile.store.plan import buckets
from relayfile.store.plan.buckets import BUILT, NOTHING, BucketSum, bucket_of
from relayfile.store.plan.digest import file_term
from relayfile.store.sqlite.engine import SqliteEngine
from tests.fakes.model_store import Deliveries, ModelStore
from tests.support.indexed_files import IndexedFiles, Known
from tests.support.running_node import running_node

FOLDERS = ("", "/w", "/w/x", "/w/é", "/v")
ALL = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.sampled_from(FOLDERS), st.integers(0, 9), st.integers(0, 11)),
        st.tuples(st.just("delete"), st.just(""), st.integers(0, 9), st.just(0)),
        st.tuples(st.just("build"), st.just(""), st.integers(1, 3), st.just(0)),
    ),
    max_size=60,
)


@pytest.fixture(autouse=True)
def small_directories_are_wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buckets, "ENTRIES_BUILT_ABOVE", 4)
    monkeypatch.setattr(buckets, "ENTRIES_DROPPED_BELOW", 2)


@ALL
@given(STEPS)
def test_what_plans_and_steps_keep_equals_recomputation(steps: list[tuple[str, str, int, int]]) -> None:
    store = ModelStore()
    deliveries = Deliveries()
    for number, (what, folder, object_number, place) in enumerate(steps):
        if what == "build":
            store.build_buckets(object_number)
        else:
            object_id = f"o/{object_number}"
            kind = MemberKind.UPSERT if what == "put" else MemberKind.DELETE
            path = f"{folder}/f{place}" if what == "put" else ""
            member = deliveries.member(
                kind, path, b"%d" % number if what == "put" else b"", object_id=object_id, received_us=number
            )
            store.apply(deliveries.fold(object_id, [member]))
        store.check()


async def test_kept_buckets_equal_recomputed_ones_through_edits_and_restarts(tmp_path: Path) -> None:
    random = Random(9)
    known: dict[str, Known] = {}
    number = 0
    seen_built = seen_dropped = False
    for _ in range(5):
        async with running_node(tmp_path) as running:
            files = IndexedFiles(running.node, "acme", last_number=number)
            files.files.update(known)
            builder = BucketBuilder(running.engine, running.node.committer)
            for step in range(12):
                folder = random.choice(FOLDERS)
                await files.put("github", {f"{folder}/f{random.randrange(60)}": Semantics() for _ in range(6)})
                if step % 3 == 2:
                    some = random.sample(sorted(files.files), len(files.files) * random.choice((2, 9)) // 10)
                    await files.delete(some)
                if step % 4 == 1:
                    await asyncio.gather(builder.round(), files.put("github", {f"/w/n{step}": Semantics()}))
                built, dropped = await check(running.engine, files)
                seen_built, seen_dropped = seen_built or built, seen_dropped or dropped
            while await builder.round():
                pass
            await check(running.engine, files)
            known, number = dict(files.files), files.last_number
    assert seen_built
    assert seen_dropped


async def check(engine: SqliteEngine, files: IndexedFiles) -> tuple[bool, bool]:
    """(some directory has all its buckets, some of several entries has none)."""
    built = dropped = False
    async with engine.view(files.key) as view:
        rows = await view.list_files("/", "", 10_000)
        for path in {above for row in rows for above in ancestors(row.path)}:
            directory = await view.directory(path)
            assert directory is not None
            kept = {row.bucket: BucketSum(*row[1:]) for row in await view.buckets(path)}
            dropped |= directory.buckets_to is None and directory.entry_count > 1
            if directory.buckets_to != BUILT:
                assert directory.buckets_to is not None or not kept
                continue
            built = True
            expected: dict[int, BucketSum] = {}
            for row in rows:
                if path in ancestors(row.path):
                    entry = row.path[len(path.rstrip("/")) + 1 :].split("/")[0]
                    files_, size, total = expected.get(bucket_of(entry), NOTHING)
                    total = (total + file_term(row.path, row.content_sha256)) % 2**256
                    expected[bucket_of(entry)] = BucketSum(files_ + 1, size + row.size_bytes, total)
            assert {number: each for number, each in kept.items() if each != NOTHING} == expected
    return built, dropped
