"""What narrow scopes and the rules of files let through, RPC by RPC, on a real node."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from hashlib import sha256
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from relayfile.errors import (
    FileNotFound,
    PermissionDenied,
    RelayfileError,
    RevisionConflict,
)
from relayfile.status import from_rpc_error
from relayfile.store.plan import digest
from relayfile.v1 import event_pb2, file_pb2, types_pb2, workspace_pb2
from tests.support.store_node import Client, TestNode, started_nodes

W = "acme"
TREE = {
    "/github/a": b"1",
    "/github/repo/b": b"22",
    "/github/repo/c": b"333",
    "/secret/x": b"4444",
    "/secret/open/y": b"55555",
    "/secret/deep/er/z": b"666666",
    "/top": b"7",
    "/own": b"88",
}
MARKED = "/secret/.relayfile.acl"
RULES = {
    MARKED: ["agent:alice", "a tag"],
    "/secret/open/.relayfile.acl": ["agent:bob"],
    "/own": ["public", "deny:agent:bob"],
}


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[TestNode]:
    async with started_nodes(tmp_path) as nodes:
        await nodes[0].writer.create_workspace(W)
        await put(nodes[0].client, {**TREE, **dict.fromkeys(RULES, b"")} | {"/own": TREE["/own"]})
        yield nodes[0]


async def put(client: Client, files: dict[str, bytes]) -> file_pb2.WriteFilesResponse:
    request = file_pb2.WriteFilesRequest(workspace_id=W)
    for path, content in files.items():
        semantics = types_pb2.Semantics(permissions=RULES[path]) if path in RULES else None
        request.items.add(write=file_pb2.WriteItem(path=path, content=content, semantics=semantics))
    return await client.files.WriteFiles(request, metadata=client.metadata)


class Caller:
    """The RPCs of one caller, as short as they can be."""

    def __init__(self, client: Client) -> None:
        self.client = client

    async def get(self, path: str) -> file_pb2.GetFileResponse:
        request = file_pb2.GetFileRequest(workspace_id=W, path=path)
        return await self.client.files.GetFile(request, metadata=self.client.metadata)

    async def read(self, path: str) -> bytes:
        request = file_pb2.ReadFileRequest(workspace_id=W, path=path)
        call = self.client.files.ReadFile(request, metadata=self.client.metadata)
        return b"".join([message.data async for message in call])

    async def batch(self, *paths: str) -> list[str]:
        request = file_pb2.BatchGetFilesRequest(workspace_id=W, paths=paths)
        answer = await self.client.files.BatchGetFiles(request, metadata=self.client.metadata)
        assert sorted([*(file.path for file in answer.files), *answer.missing_paths]) == sorted(paths)
        return [file.path for file in answer.files]

    async def contents(self, *paths: str) -> dict[str, bytes]:
        async def requests() -> AsyncIterator[file_pb2.ReadFilesRequest]:
            yield file_pb2.ReadFilesRequest(workspace_id=W, paths=paths)

        call = self.client.files.ReadFiles(requests(), metadata=self.client.metadata)
        return {each.file.path: each.content async for message in call for each in message.files}

    async def listed(self, path: str = "/", **more: int) -> list[str]:
        request = file_pb2.ListTreeRequest(workspace_id=W, path=path, **more)  # type: ignore[arg-type]
        found: list[str] = []
        async for page in self.client.files.ListTree(request, metadata=self.client.metadata):
            for entry in page.entries:
                if entry.HasField("file"):
                    found.append(entry.file.path)
                else:
                    totals = entry.directory.totals.file_count if entry.directory.HasField("totals") else "?"
                    found.append(f"{entry.directory.path}/ {totals}")
        return found

    async def exported(self, path: str = "/") -> tuple[dict[str, bytes], file_pb2.ExportEnd]:
        async def requests() -> AsyncIterator[file_pb2.ExportTreeRequest]:
            start = file_pb2.ExportStart(workspace_id=W, path=path)
            yield file_pb2.ExportTreeRequest(start=start, have_complete=True)

        found: dict[str, bytes] = {}
        end = file_pb2.ExportEnd()
        async for message in self.client.files.ExportTree(requests(), metadata=self.client.metadata):
            found.update({each.file.path: each.content for each in message.files})
            if message.HasField("end"):
                end = message.end
        return found, end

    async def found(self, prefix: str = "") -> list[str]:
        request = file_pb2.QueryFilesRequest(workspace_id=W, path_prefix=prefix)
        answer = await self.client.files.QueryFiles(request, metadata=self.client.metadata)
        return [file.path for file in answer.files]

    async def digest(
        self, path: str = "/", *, partial: bool = False, children: bool = False
    ) -> file_pb2.GetTreeDigestResponse:
        request = file_pb2.GetTreeDigestRequest(workspace_id=W, path=path, partial=partial, children=children)
        return await self.client.files.GetTreeDigest(request, metadata=self.client.metadata)

    async def events(self) -> list[event_pb2.Event]:
        request = event_pb2.ListEventsRequest(workspace_id=W)
        return list((await self.client.events.ListEvents(request, metadata=self.client.metadata)).events)

    async def watched(self, **more: Any) -> tuple[list[event_pb2.Event], event_pb2.Mark]:
        """Everything up to the first mark that is level."""
        request = event_pb2.WatchEventsRequest(workspace_id=W, **more)
        seen: list[event_pb2.Event] = []
        call = self.client.events.WatchEvents(request, metadata=self.client.metadata)
        async for message in call:
            seen += message.events
            if message.HasField("mark"):
                call.cancel()
                return seen, message.mark
        raise AssertionError("the stream ended without a mark")

    async def write(self, path: str, content: bytes = b"new", **more: Any) -> file_pb2.WriteFileResponse:
        fields = {"force": True} | more
        request = file_pb2.WriteFileRequest(workspace_id=W, path=path, content=content, **fields)
        return await self.client.files.WriteFile(request, metadata=self.client.metadata)

    async def delete(self, path: str) -> file_pb2.DeleteFileResponse:
        request = file_pb2.DeleteFileRequest(workspace_id=W, path=path, force=True)
        return await self.client.files.DeleteFile(request, metadata=self.client.metadata)

    async def move(self, path: str, to_path: str) -> file_pb2.MoveFileResponse:
        request = file_pb2.MoveFileRequest(workspace_id=W, path=path, to_path=to_path, force=True)
        return await self.client.files.MoveFile(request, metadata=self.client.metadata)


@pytest.fixture
async def caller(node: TestNode) -> AsyncIterator[Callable[..., Caller]]:
    made: list[Client] = []

    def make(subject: str = "test", *scopes: str) -> Caller:
        client = node.caller(W, subject=subject, scopes=scopes or ("relayfile:*:*",))
        made.append(client)
        return Caller(client)

    yield make
    for each in made:
        await each.channel.close()


async def refusal(asked: Any) -> RelayfileError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await asked
    return from_rpc_error(caught.value)


ALICE = {*TREE, *RULES}
"""She is allowed at the top of /secret; the rule further down only adds to that."""
BOB = {*TREE} - {"/secret/x", "/secret/deep/er/z", "/own"} | {"/secret/open/.relayfile.acl"}
EVE = {"/github/a", "/github/repo/b", "/github/repo/c", "/top", "/own"}
NARROW = ("relayfile:fs:read:/github/repo/**", "relayfile:fs:read:/top", "fs:read", "relayfile:fs:write:/github/*")
VISIBLE = {
    ("alice",): ALICE,
    ("bob",): BOB,
    ("eve",): EVE,
    ("alice", *NARROW): {"/github/repo/b", "/github/repo/c", "/top"},
    ("alice", "relayfile:fs:read:/sec*"): {path for path in ALICE if path.startswith("/secret")},
    ("eve", "relayfile:fs:read:/sec*"): set(),
    ("bob", "fs:read"): BOB,
    ("alice", "workspace:any:manage:/secret/deep/**"): {"/secret/deep/er/z"},
}
EVERY_PATH = sorted({*TREE, *RULES, "/nothing"})


def total(paths: Iterable[str]) -> tuple[int, int, bytes]:
    """Count, bytes and digest of these files."""
    contents = {path: TREE.get(path, b"") for path in paths}
    terms = sum(digest.file_term(path, sha256(content).digest()) for path, content in contents.items())
    return len(contents), sum(map(len, contents.values())), digest.to_bytes(terms % 2**256)


def told(totals: types_pb2.TreeTotals) -> tuple[int, int, bytes]:
    return totals.file_count, totals.total_bytes, totals.digest


@pytest.mark.parametrize("who", VISIBLE, ids=" ".join)
async def test_every_reader_shows_the_same(caller: Callable[..., Caller], who: tuple[str, ...]) -> None:
    one, visible = caller(*who), VISIBLE[who]
    assert set(await one.listed()) == visible
    assert set(await one.batch(*EVERY_PATH)) == visible
    contents, end = await one.exported()
    assert contents == await one.contents(*EVERY_PATH) == {path: TREE.get(path, b"") for path in visible}
    assert (end.file_count, end.total_bytes) == total(visible)[:2]
    assert told(end.totals) == total(visible)
    assert set(await one.found()) == visible
    assert {event.path for event in await one.events() if event.type < event_pb2.EVENT_TYPE_ACCESS_CHANGED} == visible
    seen, mark = await one.watched(partial_digests=True)
    assert {event.path for event in seen if event.type < event_pb2.EVENT_TYPE_ACCESS_CHANGED} == visible
    assert told(mark.roots[0].totals) == total(visible)
    assert mark.roots[0].partial is (visible != {*TREE, *RULES})
    assert told((await one.digest(partial=True)).directory.totals) == total(visible)
    for path in EVERY_PATH:
        if path in visible:
            assert (await one.get(path)).file.path == path
            assert await one.read(path) == TREE.get(path, b"")
        else:
            for asked in (one.get(path), one.read(path)):
                assert isinstance(await refusal(asked), FileNotFound | PermissionDenied)


async def test_scopes_refuse_and_rules_hide(caller: Callable[..., Caller]) -> None:
    narrow, eve = caller("alice", *NARROW), caller("eve")
    assert isinstance(await refusal(narrow.get("/github/a")), PermissionDenied)
    assert isinstance(await refusal(narrow.get("/github/nothing")), PermissionDenied)
    assert isinstance(await refusal(narrow.read("/secret/x")), PermissionDenied)
    for directory in ("/secret", "/github/other", "/top/x"):
        assert isinstance(await refusal(narrow.listed(directory)), PermissionDenied)
        assert isinstance(await refusal(narrow.exported(directory)), PermissionDenied)
        assert isinstance(await refusal(narrow.found(directory)), PermissionDenied)
        assert isinstance(await refusal(narrow.digest(directory)), PermissionDenied)
    assert await narrow.listed("/github") == ["/github/repo/b", "/github/repo/c"]
    assert isinstance(await refusal(eve.get("/secret/x")), FileNotFound)
    assert await eve.listed("/secret") == []
    assert await eve.listed("/secret/x") == []


async def test_directories_in_listings(caller: Callable[..., Caller]) -> None:
    assert await caller("alice").listed(depth=1) == ["/github/ 3", "/own", "/secret/ ?", "/top"]
    assert await caller("bob").listed(depth=1) == ["/github/ 3", "/secret/ ?", "/top"]
    assert await caller("eve").listed(depth=1) == ["/github/ 3", "/own", "/top"]
    assert await caller("bob").listed("/secret", depth=1) == ["/secret/open/ 2"]
    assert await caller("alice", *NARROW).listed(depth=2) == ["/github/ ?", "/github/repo/ 2", "/top"]


async def test_pages_hold_what_is_visible(caller: Callable[..., Caller], node: TestNode) -> None:
    await put(node.client, {f"/many/{n}": b"" for n in range(30)} | {f"/secret/n{n}": b"" for n in range(30)})
    assert await caller("eve").listed(page_size=7) == sorted(EVE | {f"/many/{n}" for n in range(30)})


async def test_digests(caller: Callable[..., Caller]) -> None:
    bob, narrow = caller("bob"), caller("alice", *NARROW)
    assert isinstance(await refusal(bob.digest()), PermissionDenied)
    assert isinstance(await refusal(narrow.digest("/github")), PermissionDenied)
    whole = await bob.digest("/github")
    assert not whole.partial
    assert told(whole.directory.totals) == total(["/github/a", "/github/repo/b", "/github/repo/c"])
    answer = await bob.digest(partial=True, children=True)
    assert answer.partial
    entries = [entry.directory.path or entry.file.path for entry in answer.children]
    assert entries == ["/github", "/secret", "/top"]
    assert told(answer.children[1].directory.totals) == total(path for path in BOB if path.startswith("/secret"))
    nothing = await caller("eve").digest("/secret", partial=True, children=True)
    assert (nothing.partial, told(nothing.directory.totals), list(nothing.children)) == (True, total([]), [])
    _, mark = await bob.watched(mark_paths=["/", "/github"])
    assert [root.HasField("totals") for root in mark.roots] == [False, True]


async def test_a_remembered_digest_follows_changes_of_files_and_rules(
    caller: Callable[..., Caller], node: TestNode
) -> None:
    bob, admin = caller("bob"), caller("alice")

    async def seen() -> tuple[int, int, bytes]:
        answer = await bob.digest(partial=True)
        assert told(answer.directory.totals) == told((await bob.digest(partial=True)).directory.totals)
        listed, end = await bob.exported()
        assert told(answer.directory.totals) == told(end.totals)
        assert len(listed) == answer.directory.totals.file_count
        return told(answer.directory.totals)

    first = await seen()
    await put(node.client, {"/github/repo/new": b"x"})
    second = await seen()
    assert second[0] == first[0] + 1
    await admin.write(MARKED, b"", semantics=types_pb2.Semantics(permissions=["public"]))
    third = await seen()
    assert third[0] == second[0] + 3
    await admin.write("/.relayfile.acl", b"", semantics=types_pb2.Semantics(permissions=["deny:agent:bob"]))
    assert (await seen())[0] == 0


async def test_a_workspace_shows_its_totals_to_those_who_may_read_it_all(caller: Callable[..., Caller]) -> None:
    async def described(one: Caller) -> workspace_pb2.Workspace:
        request = workspace_pb2.GetWorkspaceRequest(workspace_id=W)
        return (await one.client.workspaces.GetWorkspace(request, metadata=one.client.metadata)).workspace

    assert not (await described(caller("bob"))).HasField("totals")
    narrow = await described(caller("bob", "relayfile:fs:read:/github/**"))
    assert narrow.revision
    assert not narrow.HasField("totals")


async def test_writes(caller: Callable[..., Caller]) -> None:
    eve, narrow, bob = caller("eve"), caller("alice", *NARROW), caller("bob")
    for path in ("/secret/x", "/secret/not-there", "/secret/open/y"):
        assert isinstance(await refusal(eve.write(path)), PermissionDenied)
        assert isinstance(await refusal(eve.delete(path)), PermissionDenied)
    assert isinstance(await refusal(eve.move("/top", "/secret/top")), PermissionDenied)
    assert isinstance(await refusal(eve.move("/secret/x", "/x")), PermissionDenied)
    assert isinstance(await refusal(bob.write("/own")), PermissionDenied)
    assert isinstance(await refusal(narrow.write("/top")), PermissionDenied)
    assert isinstance(await refusal(narrow.move("/github/a", "/a")), PermissionDenied)
    assert isinstance(await refusal(narrow.move("/top", "/github/top")), PermissionDenied)
    assert (await narrow.write("/github/a")).changed
    assert (await narrow.move("/github/a", "/github/aa")).file.path == "/github/aa"
    assert (await bob.write("/secret/open/y")).changed
    request = file_pb2.WriteFilesRequest(workspace_id=W)
    for path in ("/github/n", "/secret/x", "/top"):
        request.items.add(write=file_pb2.WriteItem(path=path, content=b"n"))
    answer = await narrow.client.files.WriteFiles(request, metadata=narrow.client.metadata)
    assert [result.reason for result in answer.results] == ["", "PERMISSION_DENIED", "PERMISSION_DENIED"]


async def test_a_conflict_shows_its_preview_only_to_readers(caller: Callable[..., Caller]) -> None:
    blind = caller("alice", "relayfile:fs:write", "relayfile:fs:read:/top")
    met = await refusal(blind.write("/github/a", if_revision=0, force=False))
    assert isinstance(met, RevisionConflict)
    assert not met.preview
    met = await refusal(caller("alice").write("/github/a", if_revision=0, force=False))
    assert isinstance(met, RevisionConflict)
    assert met.preview == "1"


async def test_changing_rules_needs_manage(caller: Callable[..., Caller]) -> None:
    rules = types_pb2.Semantics(permissions=["agent:mallory"])
    writer = caller("alice", "relayfile:fs:write", "relayfile:fs:read")
    for asked in (
        writer.write(MARKED),
        writer.delete(MARKED),
        writer.move(MARKED, "/x"),
        writer.move("/top", "/github/.relayfile.acl"),
        writer.write("/top", semantics=rules),
        writer.write("/own", semantics=types_pb2.Semantics(comments=["no rules"])),
    ):
        assert isinstance(await refusal(asked), PermissionDenied)
    only_github = caller("alice", "relayfile:fs:write", "relayfile:fs:manage:/github")
    assert (await only_github.write("/github/.relayfile.acl", semantics=rules)).changed
    assert isinstance(await refusal(only_github.write("/github/repo/.relayfile.acl")), PermissionDenied)
    # Nobody but mallory may write below /github now: whoever may manage can take that back.
    manager = caller("alice", "relayfile:fs:manage")
    assert isinstance(await refusal(manager.write("/github/a")), PermissionDenied)
    assert (await manager.delete("/github/.relayfile.acl")).revision
    assert (await manager.write("/github/a")).changed


async def test_events_of_rules(caller: Callable[..., Caller]) -> None:
    alice, eve = caller("alice"), caller("eve")
    before = (await alice.events())[-1].revision
    written = await alice.write(
        "/github/.relayfile.acl", b"", semantics=types_pb2.Semantics(permissions=["agent:alice"])
    )
    events = [event for event in await alice.events() if event.revision > before]
    assert [(event.revision, event.type, event.path) for event in events] == [
        (before + 1, event_pb2.EVENT_TYPE_ACCESS_CHANGED, "/github"),
        (before + 2, event_pb2.EVENT_TYPE_FILE_CREATED, "/github/.relayfile.acl"),
    ]
    assert written.file.revision == before + 2
    # Eve is told that something about /github changed, though she may read nothing of it any more.
    assert [(event.revision, event.path) for event in await eve.events()][-1] == (before + 1, "/github")
    assert await eve.listed("/github") == []
    await alice.write("/top", semantics=types_pb2.Semantics(permissions=["a tag"]))
    await alice.write("/top", semantics=types_pb2.Semantics(permissions=["agent:alice"]))
    await alice.write("/github/.relayfile.acl", b"other content", semantics=None)
    kinds = [(event.type, event.path) for event in await alice.events() if event.revision > before + 2]
    assert kinds == [
        (event_pb2.EVENT_TYPE_FILE_UPDATED, "/top"),
        (event_pb2.EVENT_TYPE_ACCESS_CHANGED, "/top"),
        (event_pb2.EVENT_TYPE_FILE_UPDATED, "/top"),
        (event_pb2.EVENT_TYPE_FILE_UPDATED, "/github/.relayfile.acl"),
    ]
    await alice.delete("/github/.relayfile.acl")
    assert [event.path for event in await eve.events()][-2:] == ["/github", "/github/.relayfile.acl"]
    assert len(await eve.listed("/github")) == 3


async def test_a_deleted_file_of_its_own_rules_stays_hidden(caller: Callable[..., Caller]) -> None:
    """Also its creation, when the log is read after its end, and whatever comes to be at its path."""
    alice, eve = caller("alice"), caller("eve")
    _, mark = await eve.watched(after_revision=-1)
    ruled = types_pb2.Semantics(permissions=["agent:alice", "a tag"])
    for path in ("/private-1", "/private-2", "/private-3"):
        await alice.write(path, b"of alice", semantics=ruled)
    await alice.delete("/private-1")
    await alice.move("/private-2", "/private-4")
    await alice.delete("/private-4")
    await alice.delete("/private-3")
    await alice.write("/private-3", b"of all")
    assert [event.path for event in await alice.events() if event.revision > mark.revision] == [
        "/private-1", "/private-2", "/private-3", "/private-1", "/private-2", "/private-4", "/private-4", "/private-3",
        "/private-3",
    ]  # fmt: skip
    seen, _ = await eve.watched(after_revision=mark.revision, history_id=mark.history_id)
    assert [(event.path, event.type) for event in seen] == [("/private-3", event_pb2.EVENT_TYPE_FILE_CREATED)]
    assert seen == [event for event in await eve.events() if event.revision > mark.revision]


async def test_a_deleted_file_stays_hidden_where_nothing_else_has_rules(tmp_path: Path) -> None:
    async with started_nodes(tmp_path) as [node]:
        await node.writer.create_workspace(W)
        alice, eve = (Caller(node.caller(W, subject=name)) for name in ("alice", "eve"))
        await alice.write("/private", b"", semantics=types_pb2.Semantics(permissions=["deny:agent:eve", "public"]))
        await alice.delete("/private")
        await alice.write("/shown", b"")
        assert [event.path for event in await alice.events()] == ["/private", "/private", "/shown"]
        assert [event.path for event in await eve.events()] == ["/shown"]


async def test_the_other_path_of_a_move_is_shown_to_those_who_may_read_it(caller: Callable[..., Caller]) -> None:
    alice, eve = caller("alice"), caller("eve")
    await alice.move("/top", "/secret/top")
    await alice.move("/secret/x", "/out")
    shown = [(event.path, event.moved_to, event.moved_from) for event in (await eve.events())[-2:]]
    assert shown == [("/top", "", ""), ("/out", "", "")]
    moves = [(event.path, event.moved_to, event.moved_from) for event in (await alice.events())[-4:]]
    assert moves == [
        ("/top", "/secret/top", ""),
        ("/secret/top", "", "/top"),
        ("/secret/x", "/out", ""),
        ("/out", "", "/secret/x"),
    ]


async def test_a_stream_follows_rules_that_change(caller: Callable[..., Caller]) -> None:
    alice, eve = caller("alice"), caller("eve")
    request = event_pb2.WatchEventsRequest(workspace_id=W, after_revision=-1)
    call = eve.client.events.WatchEvents(request, metadata=eve.client.metadata)
    messages = aiter(call)
    await anext(messages)
    await alice.write("/secret/x", b"hidden")
    await alice.write("/github/a", b"seen")
    await alice.write(MARKED, b"", semantics=types_pb2.Semantics(permissions=["public"]))
    await alice.write("/secret/x", b"shown")
    seen: list[tuple[str, int]] = []
    async with asyncio.timeout(20):
        while ("/secret/x", 2) not in seen:
            seen += [(event.path, event.type) for event in (await anext(messages)).events]
    call.cancel()
    assert seen[0] == ("/github/a", 2)
