"""An audit that finds a difference goes down to it, and fetches nothing else."""

import pathlib
import random
from collections.abc import Callable

import pytest

from relayfile.paths import contains
from relayfile.settings import SyncdSettings
from relayfile.syncd import descent
from relayfile.syncd.audit import Verdict
from relayfile.syncd.audits import audit_if_due
from relayfile.syncd.cadence import Cadence
from relayfile.syncd.catch_up import prove
from relayfile.syncd.digest import element
from relayfile.syncd.mirror import Mirror
from relayfile.syncd.progress import Progress, Via
from relayfile.syncd.rows import Cursor, RemoteFile, Settled
from relayfile.syncd.shown import Differing
from tests.fakes import store as fake_store
from tests.fakes.mirror import opened, tree_of
from tests.fakes.registry import add, serving
from tests.fakes.store import FakeStore

WIDE = {f"/wide/{index}": f"{index}" for index in range(5_000)}
DEEP = {f"/deep/{index % 7}/{index % 3}/{index}": f"{index}" for index in range(200)}


def contents(store: FakeStore) -> dict[str, bytes]:
    return {path: file.content for path, file in store.files.items()}


def spoil(mirror: Mirror, *paths: str) -> None:
    """The journal has something else than the store, which no event tells."""
    assert mirror.opened is not None
    journal = mirror.opened.journal
    journal.learn([RemoteFile(path, 1, b"?" * 32, 3) for path in paths], journal.cursor)


def lose(mirror: Mirror, *paths: str) -> None:
    assert mirror.opened is not None
    journal = mirror.opened.journal
    journal.learn([RemoteFile(path, 1, None) for path in paths], journal.cursor)


@pytest.mark.parametrize(
    ("files", "change", "read", "calls_max"),
    [
        (DEEP, lambda mirror: spoil(mirror, "/deep/3/1/10"), 1, 8),
        (DEEP, lambda mirror: lose(mirror, "/deep/3/1/10"), 0, 8),
        (DEEP, lambda mirror: spoil(mirror, "/deep/not/there"), 0, 8),
        (WIDE, lambda mirror: spoil(mirror, "/wide/7", "/wide/8"), 2, 8),
        (WIDE, lambda mirror: spoil(mirror, *[f"/wide/{index}" for index in range(900)]), 900, 8),
        (WIDE | DEEP, lambda mirror: spoil(mirror, "/wide/new", "/deep/1/1/1/below"), 0, 12),
    ],
)
async def test_only_what_differs_is_asked_for_and_fetched(
    tmp_path: pathlib.Path,
    files: dict[str, str],
    change: Callable[[Mirror], None],
    read: int,
    calls_max: int,
) -> None:
    store = FakeStore()
    store.fill(files)
    async with store.served() as address, serving(address, tmp_path) as registry:
        mirror = add(registry, tmp_path, follow=False)
        await mirror.pull(full=False, via=Via.ANY)
        change(mirror)
        store.calls.clear()
        store.paths_read.clear()
        await mirror.audit(repair=True, look=False, verify_content=False)
        assert mirror.seen.audited is not None
        assert mirror.seen.audited.result.verdict is Verdict.EXACT
        assert tree_of(tmp_path) == contents(store)
        asked = [call for call in store.calls if call in ("GetTreeDigest", "ListTree")]
        assert len(asked) <= calls_max, asked
        assert "ExportTree" not in store.calls
        assert len(store.paths_read) <= read + 2  # what was lost is on disk still


async def test_an_audit_names_what_differs_and_repairs_only_when_it_is_asked_to(tmp_path: pathlib.Path) -> None:
    store = FakeStore()
    store.fill(DEEP)
    async with store.served() as address, serving(address, tmp_path) as registry:
        mirror = add(registry, tmp_path, follow=False, read_only=False)
        await mirror.pull(full=False, via=Via.ANY)
        assert mirror.opened is not None
        # What is wrong in the journal, what the store has since, and an edit: none of them is listed anywhere.
        row = mirror.opened.journal.load(["/deep/0/0/0"])["/deep/0/0/0"]
        spoil(mirror, "/deep/0/0/0")
        mirror.opened.journal.settle([Settled("/deep/0/0/0", b"?" * 32, row.disk_stat)])
        store.put("/deep/1/1/1", "newer")
        store.delete("/deep/2/2/2")
        (tmp_path / "mirror" / "edited").write_text("mine")
        before = tree_of(tmp_path)
        names = ("/deep/0/0/0", "/deep/1/1/1", "/deep/2/2/2", "/edited")
        audited = await mirror.audit(repair=False, look=True, verify_content=False, paths_max=10)
        assert audited.differing == Differing(4, 0, names)
        assert (audited.result.verdict, audited.result.unsent_count) == (Verdict.DIFFERENT, 1)
        assert tree_of(tmp_path) == before
        few = await mirror.audit(repair=False, look=False, verify_content=False, paths_max=2)
        assert few.differing == Differing(4, 0, names[:2])
        repaired = await mirror.audit(repair=True, look=False, verify_content=False, paths_max=10)
        assert repaired.differing == Differing(4, 3, names)
        assert tree_of(tmp_path) == contents(store) | {"/edited": b"mine"}
        await mirror.pull(full=False, via=Via.ANY)  # the edit goes out
        again = await mirror.audit(repair=True, look=False, verify_content=False, paths_max=10)
        assert (again.differing, again.result.verdict) == (Differing(0, 0, ()), Verdict.EXACT)


async def test_an_audit_that_repairs_nothing_lists_nothing(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(descent, "REQUESTS_MAX", 3)
    store = FakeStore()
    store.fill(DEEP)
    async with store.served() as address, serving(address, tmp_path) as registry:
        mirror = add(registry, tmp_path, follow=False)
        await mirror.pull(full=False, via=Via.ANY)
        spoil(mirror, *DEEP)
        store.calls.clear()
        audited = await mirror.audit(repair=False, look=False, verify_content=False)
        assert audited.result.verdict is Verdict.DIFFERENT
        assert "ListTree" not in store.calls


async def test_a_file_that_became_a_directory_and_back_while_nobody_looked(tmp_path: pathlib.Path) -> None:
    store = FakeStore()
    store.fill({"/a/x": "file", "/b/x/below": "in a directory", "/c/1": "1", "/c/2": "2"})
    async with store.served() as address, serving(address, tmp_path) as registry:
        mirror = add(registry, tmp_path, follow=False)
        await mirror.pull(full=False, via=Via.ANY)
        store.delete("/a/x")
        store.put("/a/x/below", "now a directory")
        store.delete("/b/x/below")
        store.put("/b/x", "now a file")
        store.delete("/c/1")
        store.put("/new/tree/of/files", "new")
        store.expire_events()
        await mirror.pull(full=False, via=Via.ANY)
        assert tree_of(tmp_path) == contents(store)
        assert mirror.seen.audited is not None
        assert mirror.seen.audited.result.verdict is Verdict.EXACT
        assert "/c/2" not in store.paths_read[4:]


async def test_too_many_differences_are_listed(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(descent, "REQUESTS_MAX", 3)
    store = FakeStore()
    store.fill(DEEP)
    async with store.served() as address, serving(address, tmp_path) as registry:
        mirror = add(registry, tmp_path, follow=False)
        await mirror.pull(full=False, via=Via.ANY)
        spoil(mirror, *DEEP)
        await mirror.audit(repair=True, look=False, verify_content=False)
        assert mirror.seen.audited is not None
        assert mirror.seen.audited.result.verdict is Verdict.EXACT
        assert "ListTree" in store.calls


async def test_a_cycle_audits_and_a_store_without_digests_is_listed_in_time(tmp_path: pathlib.Path) -> None:
    store = FakeStore()
    store.fill(DEEP)
    settings = SyncdSettings(data_dir=tmp_path, mount_audit_every=2, mount_full_pull_every=4)
    async with store.served() as address, opened(address, tmp_path, settings=settings) as mirror:
        cadence = Cadence()

        async def cycles(count: int) -> list[bool | None]:
            found = []
            for _ in range(count):
                audited = await audit_if_due(mirror, cadence, Progress(0.0))
                found.append(None if audited is None else audited.result.equal)
            return found

        mirror.journal.move_cursor(Cursor(store.revision, store.history_id))
        assert await cycles(3) == [None, True, None]
        store.knobs.no_digests = True
        store.calls.clear()
        assert await cycles(1) == [None]
        assert not cadence.digest_available
        assert "ListTree" not in store.calls
        await cycles(2)
        assert store.calls.count("ListTree") == 1
        store.knobs.no_digests = False
        mirror.journal.learn([RemoteFile("/deep/0/0/0", 1, b"?" * 32, 3)], mirror.journal.cursor)
        assert True in await cycles(4)
        assert tree_of(tmp_path) == contents(store)
        assert cadence.digest_available


async def test_ten_files_of_fifty_thousand(tmp_path: pathlib.Path) -> None:
    """What is asked for does not grow with the directory; the time is measured by the benchmarks."""
    files = {f"/flat/{index}": b"" for index in range(6_000)}
    store = FakeStore()
    store.fill(files)
    async with store.served() as address, serving(address, tmp_path) as registry:
        mirror = add(registry, tmp_path, follow=False)
        await mirror.pull(full=False, via=Via.ANY)
        assert mirror.opened is not None
        spoil(mirror, *[f"/flat/{index}" for index in range(0, 100, 10)])
        store.calls.clear()
        progress = Progress(0.0)
        result = await prove(mirror.opened, progress, repair=True)
        assert result.equal
        assert store.calls.count("GetTreeDigest") <= 6
        assert progress.wire_bytes < 200_000
        assert "ListTree" not in store.calls


async def test_only_what_is_compared_is_hashed(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Down to a directory that is alone no sum is needed; below one with others each file is hashed once."""
    store = FakeStore()
    store.fill({f"/top/alone/{index}": b"" for index in range(200)})
    async with store.served() as address, serving(address, tmp_path) as registry:
        mirror = add(registry, tmp_path, follow=False)
        await mirror.pull(full=False, via=Via.ANY)
        assert mirror.opened is not None
        hashed: list[str] = []

        def counted(path: str, content_hash: bytes) -> int:
            hashed.append(path)
            return element(path, content_hash)

        monkeypatch.setattr(descent, "element", counted)
        spoil(mirror, "/top/alone/7")
        assert (await prove(mirror.opened, Progress(0.0), repair=True)).equal
        assert hashed == []
        store.fill({f"/top/other/{index}/{index}": b"" for index in range(10)})
        await mirror.pull(full=False, via=Via.ANY)
        spoil(mirror, "/top/other/7/7", "/top/alone/7", "/top/direct")
        assert (await prove(mirror.opened, Progress(0.0), repair=True)).equal
        assert len(hashed) == 210
        assert tree_of(tmp_path) == contents(store)


@pytest.mark.parametrize("seed", range(8))
async def test_any_difference_is_found(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    monkeypatch.setattr(descent, "WIDE_ENTRIES", 8)
    monkeypatch.setattr(fake_store, "BUCKETS_ABOVE", 8)
    chance = random.Random(seed)
    store = FakeStore()
    store.fill({place(chance): str(index) for index in range(120)})
    async with store.served() as address, serving(address, tmp_path) as registry:
        mirror = add(registry, tmp_path, follow=False)
        await mirror.pull(full=False, via=Via.ANY)
        for index in range(chance.choice((1, 5, 60))):
            doomed = chance.choice(sorted(store.files))
            chance.choice((store.delete, lambda path: store.put(path, "changed")))(doomed)
            path = place(chance)
            if not any(contains(each, path) or contains(path, each) for each in store.files):
                store.put(path, f"new {index}")
        store.expire_events()
        await mirror.pull(full=False, via=Via.ANY)
        assert mirror.seen.audited is not None
        assert mirror.seen.audited.result.verdict is Verdict.EXACT
        assert tree_of(tmp_path) == contents(store)


def place(chance: random.Random) -> str:
    """A path whose first segments others have too; names of files and of directories differ."""
    depth = chance.choice((0, 1, 1, 2, 3))
    return "".join(f"/d{chance.randrange(3)}" for _ in range(depth)) + f"/f{chance.randrange(200)}"
