"""What rules hide from a caller does not show in the page tokens that it gets."""

import base64
from collections.abc import Iterator
from pathlib import Path

from relayfile import client as sdk
from relayfile.auth import ALL
from relayfile.v1 import file_pb2, writeback_pb2
from tests.support.store_node import Client, started_nodes

W = "acme"
HIDDEN = b"hidden"


def readings(token: str) -> Iterator[bytes]:
    """What somebody may make of a token."""
    padded = token + "=" * (-len(token) % 4)
    yield token.encode()
    yield base64.urlsafe_b64decode(padded)


async def test_no_token_names_what_is_hidden(tmp_path: Path) -> None:
    async with started_nodes(tmp_path) as [node]:
        await node.writer.create_workspace(W)
        async with sdk.Client(
            node.address, node.signer.mint("owner", workspaces=ALL, ttl_s=60, scopes=("*:*:*",))
        ) as owner:
            files = owner.workspace(W).files
            rule = sdk.Semantics(permissions=("allow:agent:owner",))
            await files.write("/github/b-hidden/.relayfile.acl", b"", force=True, semantics=rule)
            # Five that show, then many that do not: a page of five ends among these.
            counts = {"a": 5, "b-hidden": 300, "c": 300}
            items = [
                sdk.Write(f"/github/{folder}/{n:03}.md", b"x") for folder, many in counts.items() for n in range(many)
            ]
            assert all(result.error is None for result in await files.write_many(items))
        caller = Client(node.address, node.signer.mint("other", workspaces=ALL, ttl_s=60, scopes=("*:*:*",)))
        tokens: list[str] = []
        try:
            query = file_pb2.QueryFilesRequest(workspace_id=W, path_prefix="/github", page_size=5)
            for _ in range(8):
                page = await caller.files.QueryFiles(query, metadata=caller.metadata)
                assert not any(HIDDEN in file.path.encode() for file in page.files)
                tokens.append(page.next_page_token)
                query.page_token = page.next_page_token
                if not page.next_page_token:
                    break
            tree = file_pb2.ListTreeRequest(workspace_id=W, page_size=5)
            pages = caller.files.ListTree(tree, metadata=caller.metadata)
            tokens += [entries.page_token async for entries in pages]
            wanted = writeback_pb2.ListOperationsRequest(workspace_id=W, page_size=5)
            operations = await caller.writeback.ListOperations(wanted, metadata=caller.metadata)
            tokens.append(operations.next_page_token)
        finally:
            await caller.channel.close()
        seen = [token for token in tokens if token]
        assert len(seen) > 5
        assert not any(HIDDEN in reading for token in seen for reading in readings(token))
