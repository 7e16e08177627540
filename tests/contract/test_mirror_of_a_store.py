"""syncd on the real store's services: what the fake store of the unit tests promises, the real one must keep."""

import asyncio
import os
import pathlib

import pytest

from relayfile.syncd.audit import Verdict
from relayfile.syncd.catch_up import prove
from relayfile.syncd.progress import Progress, Via
from relayfile.syncd.rows import Cursor, RemoteFile, TrashReason
from relayfile.syncd.shown import MirrorState
from relayfile.v1 import file_pb2, types_pb2
from tests.fakes.mirror import tree_of
from tests.fakes.registry import add, serving, until
from tests.support.store_node import started_nodes

FILES = {
    "/top.json": b"{}",
    "/big.bin": os.urandom(3_000_000),
    "/empty": b"",
    **{f"/github/repos/acme/p{index % 9}/issues/{index:04}.json": os.urandom(700) for index in range(3_000)},
}


@pytest.mark.parametrize("via", [Via.EXPORT, Via.TREE])
async def test_a_pull_is_the_tree_and_events_keep_it_so(tmp_path: pathlib.Path, via: Via) -> None:
    async with started_nodes(tmp_path, mark_interval_s=1.0) as [node]:
        await node.writer.create_workspace("acme")
        await node.writer.put("acme", FILES)
        async with serving(node.address, tmp_path, metadata=node.client.metadata) as registry:
            mirror = add(registry, tmp_path, follow=False)
            progress = await mirror.pull(full=False, via=via)
            assert mirror.seen.audited is not None
            assert (mirror.seen.audited.result.verdict, progress.via) == (Verdict.EXACT, via)
            assert tree_of(tmp_path) == FILES

            await node.writer.put("acme", {"/top.json": b"newer", "/new/file": b"new"})
            await node.writer.delete("acme", ["/empty", "/big.bin"])
            await mirror.pull(full=False, via=via)
            tree = {path: held.content for path, held in node.writer.trees["acme"].files.items()}
            assert tree_of(tmp_path) == tree
            assert mirror.seen.audited.result.verdict is Verdict.EXACT


@pytest.mark.parametrize("how", ["history", "full"])
async def test_content_that_a_mirror_has_does_not_travel_again(tmp_path: pathlib.Path, how: str) -> None:
    async with started_nodes(tmp_path, mark_interval_s=1.0) as [node]:
        await node.writer.create_workspace("acme")
        await node.writer.put("acme", FILES)
        async with serving(node.address, tmp_path, metadata=node.client.metadata) as registry:
            mirror = add(registry, tmp_path, follow=False)
            await mirror.pull(full=False, via=Via.ANY)
            await node.writer.put("acme", {"/top.json": b"newer"})
            if how == "history":
                assert mirror.opened is not None
                mirror.opened.journal.move_cursor(Cursor(1, "another-history"))
            progress = await mirror.pull(full=how == "full", via=Via.ANY)
            assert progress.written[0] == 1
            # A listing of 3,000 files; their content is ten times as much.
            assert progress.wire_bytes < sum(map(len, FILES.values())) / 4
            assert mirror.seen.audited is not None
            assert mirror.seen.audited.result.verdict is Verdict.EXACT
            assert tree_of(tmp_path)["/top.json"] == b"newer"


@pytest.mark.parametrize("via", [Via.EXPORT, pytest.param(Via.TREE, marks=pytest.mark.full)])
async def test_content_that_is_in_the_directory_already_does_not_travel(tmp_path: pathlib.Path, via: Via) -> None:
    async with started_nodes(tmp_path, mark_interval_s=1.0) as [node]:
        await node.writer.create_workspace("acme")
        await node.writer.put("acme", {**FILES, "/only/there": b"new"})
        for path, content in FILES.items():
            place = tmp_path / "mirror" / path[1:]
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
        async with serving(node.address, tmp_path, metadata=node.client.metadata) as registry:
            mirror = add(registry, tmp_path, follow=False, adopt_existing=True)
            progress = await mirror.pull(full=False, via=via)
            assert progress.reused_count == len(FILES)
            # Metadata and hashes of 3,000 files; their content is more than three times as much.
            assert progress.wire_bytes < sum(map(len, FILES.values())) / 4
            assert mirror.seen.audited is not None
            assert mirror.seen.audited.result.verdict is Verdict.EXACT
    assert tree_of(tmp_path) == {**FILES, "/only/there": b"new"}


async def test_a_following_mirror_has_a_change_at_once(tmp_path: pathlib.Path) -> None:
    async with started_nodes(tmp_path, mark_interval_s=1.0) as [node]:
        await node.writer.create_workspace("acme")
        await node.writer.put("acme", {"/a/b": b"0", "/other/c": b"0"})
        async with serving(node.address, tmp_path, metadata=node.client.metadata) as registry:
            mirror = add(registry, tmp_path, paths=("/a", "/not-there-yet"))
            await until(lambda: mirror.seen.state is MirrorState.FOLLOWING)
            file = tmp_path / "mirror" / "a" / "b"
            loop = asyncio.get_running_loop()
            delays = []
            for number in range(1, 30):
                content = str(number).encode()
                started = loop.time()
                await node.writer.put("acme", {"/a/b": content})
                await until(lambda content=content: file.read_bytes() == content)
                delays.append(loop.time() - started)
            await node.writer.put("acme", {"/not-there-yet/d": b"1", "/other/c": b"2"})
            revision = node.writer.trees["acme"].revision
            await until(lambda: mirror.seen.audited is not None and mirror.seen.audited.result.at.revision == revision)
            assert mirror.seen.audited is not None
            assert mirror.seen.audited.result.verdict is Verdict.EXACT
            assert tree_of(tmp_path) == {"/a/b": b"29", "/not-there-yet/d": b"1"}
            delays.sort()
            print("commit to disk, ms:", [round(delay * 1000, 1) for delay in (delays[0], delays[15], delays[-1])])


async def test_an_audit_goes_down_to_what_differs(tmp_path: pathlib.Path) -> None:
    flat = {f"/flat/{index:05}": b"%d" % index for index in range(500)}
    deep = {f"/deep/{index % 20}/{index % 7}/{index}": b"%d" % index for index in range(4_000)}
    async with started_nodes(tmp_path, mark_interval_s=1.0) as [node]:
        await node.writer.create_workspace("acme")
        await node.writer.put("acme", {**flat, **deep})
        async with serving(node.address, tmp_path, metadata=node.client.metadata) as registry:
            mirror = add(registry, tmp_path, follow=False)
            await mirror.pull(full=False, via=Via.ANY)
            assert mirror.opened is not None
            journal = mirror.opened.journal
            wrong = [*list(flat)[::50], *list(deep)[::2_000]]
            journal.learn([RemoteFile(path, 1, b"?" * 32, 3) for path in wrong], journal.cursor)
            journal.learn([RemoteFile("/deep/1/no/such", 1, b"?" * 32, 3)], journal.cursor)
            journal.learn([RemoteFile(list(flat)[77], 1, None)], journal.cursor)
            progress = Progress(0.0)
            result = await prove(mirror.opened, progress, repair=True)
            assert result.verdict is Verdict.EXACT
            assert tree_of(tmp_path) == {**flat, **deep}
            assert progress.wire_bytes < 150_000, "a listing is three times as much"


async def test_a_mirror_holds_what_its_token_may_read_and_gives_up_what_it_may_not(tmp_path: pathlib.Path) -> None:
    files = {f"/{top}/{index}": b"%d" % index for top in ("in", "out") for index in range(30)}
    async with started_nodes(tmp_path, mark_interval_s=0.2) as [node]:
        await node.writer.create_workspace("acme")
        await node.writer.put("acme", files)
        eve = node.caller("acme", subject="eve", scopes=("relayfile:fs:read:/in/**",))
        async with serving(node.address, tmp_path, metadata=eve.metadata) as registry:
            mirror = add(registry, tmp_path)
            await until(lambda: mirror.seen.state is MirrorState.FOLLOWING)
            assert tree_of(tmp_path).keys() == {path for path in files if path.startswith("/in/")}
            assert mirror.seen.audited is not None
            assert mirror.seen.audited.result.verdict is Verdict.EXACT
            assert [root.partial for root in mirror.seen.audited.result.roots] == [True]
            for index in range(5):
                request = file_pb2.WriteFileRequest(
                    workspace_id="acme",
                    path=f"/in/{index}",
                    content=b"%d" % index,
                    semantics=types_pb2.Semantics(permissions=["agent:alice"]),
                    force=True,
                )
                await node.client.files.WriteFile(request, metadata=node.client.metadata)
            assert mirror.opened is not None
            trash = mirror.opened.journal.trash
            await until(lambda: trash.totals()[0] == 5)
            assert len(tree_of(tmp_path)) == 25
            assert {(each.path, each.reason) for each in trash.page(None, 100)} == {
                (f"/in/{index}", TrashReason.ACCESS_LOST) for index in range(5)
            }
        await eve.channel.close()


async def test_a_directory_and_a_store_exchange_their_edits(tmp_path: pathlib.Path) -> None:
    async with started_nodes(tmp_path, mark_interval_s=1.0) as [node]:
        await node.writer.create_workspace("acme")
        await node.writer.put("acme", FILES)
        root = tmp_path / "mirror"
        async with serving(node.address, tmp_path, metadata=node.client.metadata) as registry:
            mirror = add(registry, tmp_path, follow=False, read_only=False)
            await mirror.pull(full=False, via=Via.ANY)
            assert mirror.opened is not None
            before = mirror.opened.journal.cursor.revision
            large = os.urandom(2_500_000)
            (root / "top.json").write_bytes(b"edited here")
            (root / "big.bin").write_bytes(large)
            (root / "made" / "here").mkdir(parents=True)
            (root / "made" / "here" / "file").write_bytes(b"new")
            (root / "github" / "repos" / "acme" / "p0").rename(root / "github" / "repos" / "acme" / "renamed")
            (root / "empty").unlink()
            (root / "empty").mkdir()
            (root / "empty" / "not-any-more").write_bytes(b"below")
            for _ in range(3):
                await asyncio.sleep(1.1)
                await mirror.audit(repair=True, look=True, verify_content=False)
                await mirror.pull(full=False, via=Via.ANY)
            assert mirror.seen.audited is not None
            assert mirror.seen.audited.result.verdict is Verdict.EXACT

            files = tree_of(tmp_path)
            assert files["/big.bin"] == large
            renamed = sum(path.startswith("/github/repos/acme/renamed/") for path in files)
            assert renamed == sum(path.startswith("/github/repos/acme/p0/") for path in FILES)
            # A move is two revisions, everything else one: nothing was sent twice.
            assert mirror.opened.journal.cursor.revision == before + 2 * renamed + 5
        (tmp_path / "other").mkdir()
        async with serving(node.address, tmp_path / "other", metadata=node.client.metadata) as registry:
            await add(registry, tmp_path / "other", follow=False).pull(full=False, via=Via.ANY)
        assert tree_of(tmp_path / "other") == files
