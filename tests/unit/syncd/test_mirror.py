import asyncio
import json
import os
import pathlib
import shutil

import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry

from relayfile.errors import ExportRefused, MirrorAlreadyExists, MirrorRefused, Unavailable
from relayfile.settings import SyncdSettings
from relayfile.syncd.audit import Verdict
from relayfile.syncd.mirror import Mirror
from relayfile.syncd.progress import Via
from relayfile.syncd.shown import MirrorState
from relayfile.telemetry import configure_tracing
from tests.fakes.mirror import tree_of
from tests.fakes.registry import add, serving, until
from tests.fakes.store import FakeStore

FILES = {f"/github/issues/{index}.json": f"issue {index}" for index in range(300)}


def contents(store: FakeStore) -> dict[str, bytes]:
    return {path: file.content for path, file in store.files.items()}


def filled() -> FakeStore:
    store = FakeStore()
    store.fill(FILES)
    return store


async def level(mirror: Mirror, store: FakeStore) -> None:
    """Until the mirror has seen everything that is committed and a mark after it."""
    await store.notify()
    await until(
        lambda: (
            mirror.seen.audited is not None
            and mirror.seen.state is MirrorState.FOLLOWING
            and mirror.seen.audited.result.at.revision == store.revision
        )
    )


def problems(mirror: Mirror) -> dict[str, str]:
    assert mirror.opened is not None
    return {each.path: each.reason for each in mirror.opened.journal.problems.listed(1000)}


def trash(tmp_path: pathlib.Path) -> list[bytes]:
    return sorted(path.read_bytes() for path in (tmp_path / "mirror" / ".relayfile" / "trash").iterdir())


async def test_changes_deletes_and_moves_follow(tmp_path: pathlib.Path) -> None:
    store = filled()
    async with store.served() as address, serving(address, tmp_path) as registry:
        mirror = add(registry, tmp_path)
        await level(mirror, store)
        assert tree_of(tmp_path) == contents(store)
        store.put("/github/issues/1.json", "edited")
        store.put("/new/deep/file", "new")
        store.delete("/github/issues/2.json")
        store.move("/github/issues/3.json", "/moved/3.json")
        store.put("/github/issues/4.json", b"large" * 500_000)
        await level(mirror, store)
        assert tree_of(tmp_path) == contents(store)
        assert mirror.seen.audited is not None
        assert mirror.seen.audited.result.verdict is Verdict.EXACT
        assert "/moved/3.json" not in store.paths_read
        store.delete("/new/deep/file")
        await level(mirror, store)
        assert not (tmp_path / "mirror" / "new").exists()
    assert trash(tmp_path) == sorted([b"issue 1", b"issue 2", b"issue 3", b"issue 4", b"new"])


async def test_a_file_becomes_a_directory_and_back(tmp_path: pathlib.Path) -> None:
    store = FakeStore()
    store.fill({"/a": "file", "/b": "other"})
    async with store.served() as address, serving(address, tmp_path) as registry:
        mirror = add(registry, tmp_path)
        await level(mirror, store)
        store.delete("/a")
        store.put("/a/below", "1")
        await level(mirror, store)
        assert tree_of(tmp_path) == contents(store)
        store.delete("/a/below")
        store.put("/a", "file again")
        await level(mirror, store)
        assert tree_of(tmp_path) == contents(store)


async def test_a_restart_goes_on_from_the_cursor(tmp_path: pathlib.Path) -> None:
    store = filled()
    async with store.served() as address:
        async with serving(address, tmp_path) as registry:
            mirror = add(registry, tmp_path)
            await level(mirror, store)
            with pytest.raises(MirrorAlreadyExists):
                add(registry, tmp_path)
        store.put("/github/issues/7.json", "while away")
        store.delete("/github/issues/8.json")
        store.calls.clear()
        async with serving(address, tmp_path) as registry:
            (mirror,) = registry
            await level(mirror, store)
            assert tree_of(tmp_path) == contents(store)
        assert "ExportTree" not in store.calls
        assert "ListTree" not in store.calls


async def test_it_reconnects_and_misses_nothing(tmp_path: pathlib.Path) -> None:
    store = filled()
    async with store.served() as address, serving(address, tmp_path) as registry:
        mirror = add(registry, tmp_path)
        await level(mirror, store)
    port = int(address.rpartition(":")[2])
    assert port
    store.put("/later", "1")
    async with store.served() as address, serving(address, tmp_path) as registry:
        (mirror,) = registry
        await level(mirror, store)
        assert tree_of(tmp_path)["/later"] == b"1"


async def test_a_silent_stream_counts_as_dead(tmp_path: pathlib.Path) -> None:
    store = filled()
    settings = SyncdSettings(data_dir=tmp_path, watch_silence_max_s=0.2)
    async with store.served() as address, serving(address, tmp_path, settings) as registry:
        store.knobs.silent_watch = True
        mirror = add(registry, tmp_path)
        await until(lambda: mirror.seen.state is MirrorState.DISCONNECTED)
        assert "silent" in str(mirror.seen.error)
        store.put("/later", "1")
        store.knobs.silent_watch = False
        await level(mirror, store)
        assert tree_of(tmp_path) == contents(store)


@pytest.mark.parametrize("how", ["expired", "history"])
async def test_a_mirror_that_follows_audits_itself_after_a_cut_with_a_cursor_of_no_use(
    tmp_path: pathlib.Path, how: str
) -> None:
    store = filled()
    async with store.served() as address, serving(address, tmp_path) as registry:
        mirror = add(registry, tmp_path)
        await level(mirror, store)
        store.knobs.refusal = Unavailable(what="store (it is being restored)")
        store.put("/github/issues/1.json", "edited")
        await store.notify()
        await until(lambda: mirror.seen.state is MirrorState.DISCONNECTED)
        store.delete("/github/issues/2.json")
        store.expire_events() if how == "expired" else store.new_history()
        store.calls.clear()
        store.paths_read.clear()
        store.knobs.refusal = None
        await level(mirror, store)
        assert tree_of(tmp_path) == contents(store)
        assert mirror.seen.audited is not None
        assert mirror.seen.audited.result.verdict is Verdict.EXACT
        assert store.paths_read == ["/github/issues/1.json"]
        # Digests lead to what differs; of another history the numbers of what does not are to be learned, too.
        assert ("ListTree" in store.calls) is (how == "history")


@pytest.mark.parametrize("how", ["expired", "history"])
async def test_a_cursor_of_no_use_is_made_up_by_a_proved_listing(tmp_path: pathlib.Path, how: str) -> None:
    store = filled()
    async with store.served() as address, serving(address, tmp_path) as registry:
        mirror = add(registry, tmp_path, follow=False)
        await mirror.pull(full=False, via=Via.ANY)
        store.put("/github/issues/1.json", "edited")
        store.delete("/github/issues/2.json")
        store.put("/new", "new")
        store.expire_events() if how == "expired" else store.new_history()
        await mirror.pull(full=False, via=Via.ANY)
        assert tree_of(tmp_path) == contents(store)
        assert mirror.seen.audited is not None
        assert mirror.seen.audited.result.verdict is Verdict.EXACT
        assert store.paths_read == ["/github/issues/1.json", "/new"]


async def test_i4_an_empty_listing_without_proof_deletes_nothing(tmp_path: pathlib.Path) -> None:
    store = filled()
    async with store.served() as address, serving(address, tmp_path) as registry:
        mirror = add(registry, tmp_path, follow=False)
        await mirror.pull(full=False, via=Via.ANY)
        store.knobs.empty_listing = True
        store.expire_events()
        store.put("/one/more", "x")
        store.expire_events()
        await mirror.pull(full=False, via=Via.ANY)
        assert mirror.seen.audited is not None
        assert mirror.seen.audited.result.verdict is Verdict.DIFFERENT
        assert len(tree_of(tmp_path)) == len(FILES)
        store.knobs.empty_listing = False
        await mirror.pull(full=True, via=Via.ANY)
        assert tree_of(tmp_path) == contents(store)


async def test_i4_a_store_that_is_suddenly_empty_halts(tmp_path: pathlib.Path) -> None:
    store = filled()
    async with store.served() as address, serving(address, tmp_path) as registry:
        mirror = add(registry, tmp_path, follow=False)
        await mirror.pull(full=False, via=Via.ANY)
        store.knobs.empty_listing = store.knobs.empty_digest = True
        store.new_history()
        with pytest.raises(MirrorRefused, match="MASS_DELETE"):
            await mirror.pull(full=False, via=Via.ANY)
        assert mirror.seen.state is MirrorState.HALTED
        assert mirror.seen.halt is not None
        assert mirror.seen.halt.plan is not None
        assert (mirror.seen.halt.plan.rule, mirror.seen.halt.plan.delete_count) == ("OVER_HALF", len(FILES))
    assert tree_of(tmp_path) == contents(store)
    async with store.served() as address, serving(address, tmp_path) as registry:
        (mirror,) = registry
        with pytest.raises(MirrorRefused, match="MASS_DELETE"):
            await mirror.pull(full=False, via=Via.ANY)
    assert tree_of(tmp_path) == contents(store)


async def test_i4_events_that_empty_a_directory_halt_while_following(tmp_path: pathlib.Path) -> None:
    store = filled()
    store.fill({f"/keep/{index}": "x" for index in range(400)})
    async with store.served() as address, serving(address, tmp_path) as registry:
        mirror = add(registry, tmp_path)
        await level(mirror, store)
        before = tree_of(tmp_path)
        for path in FILES:
            store.delete(path)
        await store.notify()
        await until(lambda: mirror.seen.state is MirrorState.HALTED)
        assert mirror.seen.halt is not None
        assert mirror.seen.halt.plan is not None
        assert mirror.seen.halt.plan.rule == "WHOLE_DIRECTORY"
        assert tree_of(tmp_path) == before
        # The files come back: a pull finds nothing to delete, and it follows again by itself.
        store.fill(FILES)
        await mirror.pull(full=False, via=Via.ANY)
        store.put("/keep/0", "y")
        await level(mirror, store)
        assert tree_of(tmp_path) == contents(store)


async def test_i4_a_renamed_directory_is_no_mass_delete(tmp_path: pathlib.Path) -> None:
    store = filled()
    async with store.served() as address, serving(address, tmp_path) as registry:
        mirror = add(registry, tmp_path)
        await level(mirror, store)
        for path in FILES:
            store.move(path, "/renamed" + path)
        await level(mirror, store)
        assert tree_of(tmp_path) == contents(store)


async def test_i3_a_local_edit_is_never_lost(tmp_path: pathlib.Path) -> None:
    store = filled()
    edited = tmp_path / "mirror" / "github" / "issues" / "1.json"
    async with store.served() as address, serving(address, tmp_path) as registry:
        mirror = add(registry, tmp_path)
        await level(mirror, store)
        edited.write_text("mine")
        store.put("/github/issues/1.json", "theirs")
        (tmp_path / "mirror" / "github" / "issues" / "2.json").write_text("mine too")
        store.delete("/github/issues/2.json")
        (tmp_path / "mirror" / "new").write_text("mine as well")
        store.put("/new", "theirs")
        store.put("/github/issues/5.json", "goes on")
        await level(mirror, store)
        listed = problems(mirror)
        assert listed.pop("/new") == "LOCAL_FILE_IN_THE_WAY"
        # Where the edit was seen before the store's own change came, that change has ended the notice of it.
        assert listed.items() <= {f"/github/issues/{number}.json": "READ_ONLY_EDIT" for number in (1, 2)}.items()
        assert mirror.seen.audited is not None
        assert mirror.seen.audited.result.verdict is Verdict.EXACT_EXCEPT_LISTED
        assert tree_of(tmp_path) == contents(store) | {"/new": b"mine as well"}
        assert {b"mine", b"mine too"} < set(trash(tmp_path))
        # Once the file is out of the way, the store's version comes.
        (tmp_path / "mirror" / "new").unlink()
        await mirror.audit(repair=True, look=False, verify_content=False)
        assert tree_of(tmp_path) == contents(store)
        assert "/new" not in problems(mirror)


async def test_i3_a_sweep_finds_edits_and_restores_what_is_missing(tmp_path: pathlib.Path) -> None:
    store = filled()
    directory = tmp_path / "mirror" / "github" / "issues"
    async with store.served() as address, serving(address, tmp_path) as registry:
        mirror = add(registry, tmp_path, follow=False)
        await mirror.pull(full=False, via=Via.ANY)
        (directory / "1.json").write_text("mine")
        (directory / "2.json").unlink()
        os.utime(directory / "3.json", (1, 1))
        same_size = directory / "4.json"
        stat = same_size.stat()
        same_size.write_text("ISSUE 4")
        os.utime(same_size, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        audited = await mirror.audit(repair=True, look=True, verify_content=False)
        assert audited.swept is not None
        assert (audited.swept.changed_count, audited.swept.missing_count) == (3, 1)
        assert problems(mirror) == {
            "/github/issues/1.json": "READ_ONLY_EDIT",
            "/github/issues/4.json": "READ_ONLY_EDIT",
        }
        assert tree_of(tmp_path) == contents(store)
        assert {b"mine", b"ISSUE 4"} == set(trash(tmp_path))


@pytest.mark.parametrize("how", ["missing", "replaced", "unmarked"])
async def test_i1_a_lost_root_halts_and_recovers_when_it_is_back(tmp_path: pathlib.Path, how: str) -> None:
    store = filled()
    root, aside = tmp_path / "mirror", tmp_path / "aside"
    settings = SyncdSettings(data_dir=tmp_path, mount_interval_s=0.05, retry_delay_max_s=0.1)
    async with store.served() as address, serving(address, tmp_path, settings) as registry:
        mirror = add(registry, tmp_path)
        await level(mirror, store)
        before = tree_of(tmp_path)
        root.rename(aside)
        if how == "replaced":
            root.mkdir()
        elif how == "unmarked":
            shutil.copytree(aside / "github", root / "github")
        store.delete("/github/issues/1.json")
        await store.notify()
        await until(lambda: mirror.seen.state is MirrorState.HALTED)
        assert mirror.seen.halt is not None
        assert mirror.seen.halt.reason.startswith("ROOT_")
        if root.exists():
            assert not (root / ".relayfile").exists()
            shutil.rmtree(root)
        aside.rename(root)
        assert tree_of(tmp_path) == before
        await level(mirror, store)
        assert tree_of(tmp_path) == contents(store)


async def test_i5_the_trash_is_bounded(tmp_path: pathlib.Path) -> None:
    store = FakeStore()
    store.put("/a", b"0" * 1000)
    settings = SyncdSettings(data_dir=tmp_path, trash_bytes_max=3_500)
    async with store.served() as address, serving(address, tmp_path, settings) as registry:
        mirror = add(registry, tmp_path)
        for number in range(1, 8):
            await level(mirror, store)
            store.put("/a", str(number).encode() * 1000)
        await level(mirror, store)
        assert mirror.opened is not None
        assert mirror.opened.journal.trash.totals() == (3, 3_000)
    assert trash(tmp_path) == [digit * 1000 for digit in (b"4", b"5", b"6")]


async def test_i7_garbage_blocks_nothing_and_heals(tmp_path: pathlib.Path) -> None:
    store = filled()
    settings = SyncdSettings(data_dir=tmp_path, mount_interval_s=0.05)
    async with store.served() as address, serving(address, tmp_path, settings) as registry:
        mirror = add(registry, tmp_path)
        await level(mirror, store)
        store.knobs.garbage = {"/bad"}
        store.put("/bad", "good")
        store.put("/fine", "fine")
        await level(mirror, store)
        await until(lambda: problems(mirror) == {"/bad": "HASH_MISMATCH"})
        assert tree_of(tmp_path)["/fine"] == b"fine"
        store.knobs.garbage = set()
        await until(lambda: problems(mirror) == {})
        assert tree_of(tmp_path) == contents(store)


async def test_a_forced_export_that_is_refused_says_so_at_once(tmp_path: pathlib.Path) -> None:
    store = filled()
    store.knobs.refuse_export = True
    async with store.served() as address, serving(address, tmp_path) as registry:
        mirror = add(registry, tmp_path, follow=False)
        with pytest.raises(ExportRefused):
            await mirror.pull(full=False, via=Via.EXPORT)
        await mirror.pull(full=False, via=Via.ANY)
    assert store.calls.count("ExportTree") == 2
    assert tree_of(tmp_path) == contents(store)


async def test_a_pull_can_be_joined(tmp_path: pathlib.Path) -> None:
    store = filled()
    store.knobs.latency_s = 0.02
    async with store.served() as address, serving(address, tmp_path) as registry:
        mirror = add(registry, tmp_path, follow=False)
        first, second = await asyncio.gather(mirror.pull(full=False, via=Via.ANY), mirror.pull(full=False, via=Via.ANY))
        assert first is second
    assert store.calls.count("ExportTree") == 1


async def test_a_files_write_is_in_the_trace_of_its_webhook(tmp_path: pathlib.Path) -> None:
    exporter = InMemorySpanExporter()
    tracing = configure_tracing(
        "syncd", SyncdSettings(data_dir=tmp_path), CollectorRegistry(), SimpleSpanProcessor(exporter)
    )
    store = filled()
    sampled = f"00-{'a' * 32}-{'b' * 16}-01"
    async with store.served() as address, serving(address, tmp_path, tracing=tracing) as registry:
        mirror = add(registry, tmp_path)
        await level(mirror, store)
        store.put("/unsampled", "1", traceparent=f"00-{'c' * 32}-{'d' * 16}-00")
        await level(mirror, store)
        assert not exporter.get_finished_spans()
        for number in range(5):
            store.put(f"/sampled/{number}", "1", traceparent=sampled)
        await level(mirror, store)
    (span,) = exporter.get_finished_spans()
    assert span.name == "write mirror"
    assert span.context is not None
    assert f"{span.context.trace_id:032x}" == "a" * 32
    assert dict(span.attributes or {})["messaging.batch.message_count"] == 5


async def test_the_status_file_says_how_fresh_it_is(tmp_path: pathlib.Path) -> None:
    store = filled()
    async with store.served() as address, serving(address, tmp_path) as registry:
        mirror = add(registry, tmp_path)
        await level(mirror, store)
        status = json.loads((tmp_path / "mirror" / ".relayfile" / "status.json").read_text())
    assert (status["verdict"], status["revision"], status["state"]) == ("exact", store.revision, "following")
    assert status["files"]["materialised"] == len(FILES)
