"""Buckets of wide directories over gRPC: built in the background, told with the digest, gone with the width."""

from collections.abc import AsyncIterator
from pathlib import Path

import grpc.aio
import pytest

from relayfile.model import Semantics
from relayfile.paths import name
from relayfile.store.buckets import BucketBuilder, BuildBuckets, BuildStep
from relayfile.store.plan import buckets
from relayfile.store.plan.digest import file_term
from relayfile.store.servicers import tree_digest
from relayfile.v1 import file_pb2, workspace_pb2
from tests.support.indexed_files import IndexedFiles
from tests.support.store_node import TestNode, started_nodes

W = "acme"


@pytest.fixture
async def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[TestNode]:
    monkeypatch.setattr(buckets, "ENTRIES_BUILT_ABOVE", 500)
    monkeypatch.setattr(buckets, "ENTRIES_DROPPED_BELOW", 300)
    async with started_nodes(tmp_path) as nodes:
        await nodes[0].writer.create_workspace(W)
        yield nodes[0]


async def digest_of(node: TestNode, path: str) -> file_pb2.GetTreeDigestResponse:
    request = file_pb2.GetTreeDigestRequest(workspace_id=W, path=path, buckets=True)
    return await node.client.files.GetTreeDigest(request, metadata=node.client.metadata)


async def built(node: TestNode, path: str) -> file_pb2.GetTreeDigestResponse:
    """The digest, as soon as the background work is done; this helps it."""
    builder = BucketBuilder(node.engine, node.node.committer)
    while await builder.round():
        pass
    answer = await digest_of(node, path)
    assert answer.buckets
    return answer


async def test_buckets_cover_the_directory_and_name_what_is_in_them(node: TestNode) -> None:
    files = IndexedFiles(node.node, W)
    await files.put("github", {f"/wide/{number}.json": Semantics() for number in range(600)})
    await files.put("github", {f"/wide/folder-{number % 3}/{number}": Semantics() for number in range(30)})
    answer = await built(node, "/wide")
    assert [each.bucket for each in answer.buckets] == list(range(256))
    assert sum(each.totals.file_count for each in answer.buckets) == 630
    assert sum(each.totals.total_bytes for each in answer.buckets) == answer.directory.totals.total_bytes
    total = sum(int.from_bytes(each.totals.digest, "big") for each in answer.buckets) % 2**256
    assert total == int.from_bytes(answer.directory.totals.digest, "big")
    chosen = next(each for each in answer.buckets if each.bucket == buckets.bucket_of("folder-1"))
    request = file_pb2.GetTreeDigestRequest(workspace_id=W, path="/wide", children=True, bucket=chosen.bucket)
    children = (await node.client.files.GetTreeDigest(request, metadata=node.client.metadata)).children
    terms = 0
    for child in children:
        if child.HasField("file"):
            terms += file_term(child.file.path, child.file.content_sha256)
            assert buckets.bucket_of(name(child.file.path)) == chosen.bucket
        else:
            terms += int.from_bytes(child.directory.totals.digest, "big")
    assert terms % 2**256 == int.from_bytes(chosen.totals.digest, "big")


async def test_two_answers_differ_in_the_bucket_of_what_changed(node: TestNode) -> None:
    files = IndexedFiles(node.node, W)
    await files.put("github", {f"/wide/{number}.json": Semantics() for number in range(600)})
    before = await built(node, "/wide")
    await files.put("github", {"/wide/7.json": Semantics()})
    after = await digest_of(node, "/wide")
    differing = [old.bucket for old, new in zip(before.buckets, after.buckets, strict=True) if old != new]
    assert differing == [buckets.bucket_of("7.json")]


async def test_a_directory_that_is_no_longer_wide_has_none(node: TestNode) -> None:
    files = IndexedFiles(node.node, W)
    await files.put("github", {f"/wide/{number}.json": Semantics() for number in range(600)})
    await built(node, "/wide")
    await files.delete([f"/wide/{number}.json" for number in range(290)])
    assert (await digest_of(node, "/wide")).buckets
    await files.delete([f"/wide/{number}.json" for number in range(290, 310)])
    answer = await digest_of(node, "/wide")
    assert answer.directory.entry_count == 290
    assert not answer.buckets
    assert not (await digest_of(node, "/nothing")).buckets


async def test_of_a_deleted_workspace_nothing_is_written(node: TestNode) -> None:
    files = IndexedFiles(node.node, W)
    await files.put("github", {f"/wide/{number}.json": Semantics() for number in range(600)})
    client = node.client
    request = workspace_pb2.DeleteWorkspaceRequest(workspace_id=W)
    await client.workspaces.DeleteWorkspace(request, metadata=client.metadata)
    plan, _ = await BuildBuckets(node.engine).plan(files.key, [BuildStep("/wide")])
    assert plan is not None
    assert not plan.directories_put
    assert not plan.buckets.sums


async def test_the_entries_of_several_buckets_come_at_once_and_never_too_many(
    node: TestNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tree_digest, "_SLICE_ENTRIES", 50)
    files = IndexedFiles(node.node, W)
    await files.put("github", {f"/wide/{number}.json": Semantics() for number in range(600)})
    await files.put("github", {f"/wide/folder-{number}/{number}": Semantics() for number in range(20)})
    answer = await built(node, "/wide")

    async def entries(first: int, *more: int) -> list[str]:
        request = file_pb2.GetTreeDigestRequest(
            workspace_id=W, path="/wide", children=True, bucket=first, more_buckets=more
        )
        children = (await node.client.files.GetTreeDigest(request, metadata=node.client.metadata)).children
        return [each.file.path or each.directory.path for each in children]

    three = await entries(7, 8, 250)
    assert three == sorted([*await entries(7), *await entries(8), *await entries(250)])
    everything = await entries(0, *range(1, 256))
    assert len(everything) == len(set(everything)) == answer.directory.entry_count == 620
    monkeypatch.setattr(tree_digest, "CHILDREN_MAX", 300)
    assert await entries(0, *range(1, 256)) == []
    assert await entries(7, 8, 250) == three
    with pytest.raises(grpc.aio.AioRpcError, match=r"more_buckets.*256"):
        await entries(0, 256)
    request = file_pb2.GetTreeDigestRequest(workspace_id=W, path="/wide", children=True, more_buckets=[1])
    with pytest.raises(grpc.aio.AioRpcError, match="more_buckets"):
        await node.client.files.GetTreeDigest(request, metadata=node.client.metadata)
