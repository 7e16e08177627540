"""Bad requests to every RPC that a node serves: the exact code, reason and fields, and nothing changes.

Rows of the fields that requests have in common are made by `tests.support.bad_requests` from a good request of each RPC
(`good_requests`); what only one RPC refuses is in `refused_requests`. An RPC or a field without a row fails.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing

import pytest
import pytest_asyncio
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.message import Message

from relayfile.v1 import (
    admin_pb2,
    dead_letter_pb2,
    event_pb2,
    file_pb2,
    route_pb2,
    workspace_pb2,
    writeback_pb2,
)
from tests.contract.test_api_status import STORE_SERVICES, listed
from tests.support.bad_requests import (
    ANY_REASON,
    PAGE_TOKEN_INVALID,
    Row,
    answer,
    answers,
    method_of,
    rows_by_field,
    uncovered,
    with_field,
)
from tests.support.good_requests import APP, FREE, GOOD, MAY_BE_EMPTY, OTHER, VARIANTS, W
from tests.support.refused_requests import special
from tests.support.store_node import Client, TestNode, started_nodes

FILES = {f"/github/issues/{number}.json": b"%d" % number for number in range(9)} | {"/notes/a.txt": b"a"}

SERVED = sorted(
    f"{service}Service/{method.name}"
    for service in STORE_SERVICES
    for method in descriptor_pool.Default().FindServiceByName(f"relayfile.v1.{service}Service").methods
    if f"{service}Service/{method.name}" not in listed()
)


def rows(rpc: str) -> list[Row]:
    general = rows_by_field(
        rpc,
        GOOD[rpc],
        may_be_empty=MAY_BE_EMPTY.get(rpc, ()),
        free=FREE.get(rpc, ()),
        variants=VARIANTS.get(rpc, {}),
    )
    return [*general, *special(rpc)]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def node(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[TestNode]:
    async with started_nodes(tmp_path_factory.mktemp("node")) as nodes:
        client = nodes[0].client
        for name in (W, OTHER):
            await nodes[0].writer.create_workspace(name)
        await nodes[0].writer.put(W, FILES)
        for number in range(4):  # each an operation for the provider
            request = file_pb2.WriteFileRequest(
                workspace_id=W, path=f"/github/issues/{number}.json", content=b"edited", force=True
            )
            await client.files.WriteFile(request, metadata=client.metadata)
        for tenant in ("t1", "t2", "t3"):
            route = route_pb2.PutRouteRequest(app=APP, tenant=tenant, workspace_id=W)
            await client.routes.PutRoute(route, metadata=client.metadata)
        yield nodes[0]


async def state(client: Client) -> list[Message]:
    """All that a bad request could have changed."""
    found: list[Message] = []
    for name in (W, f"_app/{APP}"):
        request = workspace_pb2.GetWorkspaceRequest(workspace_id=name)
        found.append(await client.workspaces.GetWorkspace(request, metadata=client.metadata))
        digest = file_pb2.GetTreeDigestRequest(workspace_id=name, children=True)
        found.append(await client.files.GetTreeDigest(digest, metadata=client.metadata))
        events = event_pb2.ListEventsRequest(workspace_id=name)
        found.append(await client.events.ListEvents(events, metadata=client.metadata))
        actions = admin_pb2.ListAdminActionsRequest(workspace_id=name)
        found.append(await client.admin.ListAdminActions(actions, metadata=client.metadata))
        letters = dead_letter_pb2.ListDeadLettersRequest(workspace_id=name)
        operations = writeback_pb2.ListOperationsRequest(workspace_id=name)
        found.append(await client.writeback.ListOperations(operations, metadata=client.metadata))
        found.append(await client.dead_letters.ListDeadLetters(letters, metadata=client.metadata))
    return found


def test_every_served_rpc_and_every_field_of_its_request_has_rows() -> None:
    assert sorted(GOOD) == SERVED
    missing = {rpc: left for rpc in SERVED if (left := uncovered(rpc, rows(rpc), GOOD[rpc][0], FREE.get(rpc, ())))}
    assert missing == {}


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("rpc", SERVED)
async def test_what_is_refused_and_that_nothing_changes(node: TestNode, rpc: str) -> None:
    client = node.client
    before = await state(client)
    wrong = []
    for each in rows(rpc):
        found = await answer(client.channel, client.metadata, rpc, each)
        if found is not None and each.refusal.reason == ANY_REASON:
            found = found._replace(reason=ANY_REASON)
        if found != each.refusal:
            wrong.append((each.name, found, each.refusal))
    assert wrong == []
    assert await state(client) == before


# Pages of a list, and the arguments that make it another one.
PAGED: Mapping[str, tuple[Message, Sequence[tuple[str, object]]]] = {
    "FileService/ListTree": (
        file_pb2.ListTreeRequest(workspace_id=W, page_size=2),
        [("workspace_id", OTHER), ("path", "/github"), ("depth", 1)],
    ),
    "FileService/QueryFiles": (
        file_pb2.QueryFilesRequest(workspace_id=W, path_prefix="/github", page_size=2),
        [("workspace_id", OTHER), ("path_prefix", "/"), ("relation", "x"), ("properties", {"a": "b"})],
    ),
    "EventService/ListEvents": (
        event_pb2.ListEventsRequest(workspace_id=W, page_size=2),
        [("workspace_id", OTHER), ("filter.providers", ["x"]), ("filter.path_globs", ["/**"])],
    ),
    "RouteService/ListRoutes": (
        route_pb2.ListRoutesRequest(app=APP, page_size=2),
        [("app", "other"), ("workspace_id", W)],
    ),
    "WritebackService/ListOperations": (
        writeback_pb2.ListOperationsRequest(workspace_id=W, page_size=2),
        [("workspace_id", OTHER), ("filter.path", "/github")],
    ),
    "AdminService/ListAdminActions": (
        admin_pb2.ListAdminActionsRequest(workspace_id=f"_app/{APP}", page_size=2),
        [("workspace_id", W), ("actor", "x"), ("method", "x")],
    ),
}


@pytest.mark.asyncio(loop_scope="module")
async def test_a_page_token_is_good_for_its_own_list_only(node: TestNode) -> None:
    tokens = {rpc: await first_token(node.client, rpc, request) for rpc, (request, _) in PAGED.items()}
    wrong = []
    for rpc, (request, other_lists) in PAGED.items():
        token = tokens[rpc]
        changed = [token[:-1], token + "A", token[1:], token.swapcase(), token[:8] + "A" + token[9:], f" {token}"]
        foreign = [each for name, each in tokens.items() if name != rpc]
        bad = [with_field(request, "page_token", each) for each in (*changed, *foreign) if each != token]
        mine = with_field(request, "page_token", token)
        bad += [with_field(mine, field, value) for field, value in other_lists]
        for number, each in enumerate(bad):
            asked = Row("", (each.SerializeToString(),), PAGE_TOKEN_INVALID)
            found = await answer(node.client.channel, node.client.metadata, rpc, asked)
            if found != PAGE_TOKEN_INVALID:
                wrong.append((rpc, number, found))
        good = Row("", (mine.SerializeToString(),), PAGE_TOKEN_INVALID)
        assert await answer(node.client.channel, node.client.metadata, rpc, good) is None, rpc
    assert wrong == []


async def first_token(client: Client, rpc: str, request: Message) -> str:
    response = message_factory.GetMessageClass(method_of(rpc).output_type)
    async with aclosing(answers(client.channel, client.metadata, rpc, (request.SerializeToString(),), 5.0)) as pages:
        async for page in pages:
            made = response.FromString(page)
            token = getattr(made, "next_page_token", "") or getattr(made, "page_token", "")
            assert token, f"{rpc}: one page is all"
            return str(token)
    raise AssertionError(f"{rpc}: no page")


READS = [rpc for rpc in SERVED if rpc.split("/")[1].startswith(("Get", "List", "Query", "BatchGet", "Read", "Export"))]


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("rpc", READS)
async def test_fields_of_a_later_version_are_passed_over(node: TestNode, rpc: str) -> None:
    """Of numbers that this version does not know: answered as without them."""
    client = node.client
    later = b"\xfa\x3f\x03new\xf0\x3f\x07"

    async def answered(*sent: bytes) -> object:
        asked = Row("", sent, PAGE_TOKEN_INVALID)
        return await answer(client.channel, client.metadata, rpc, asked)

    plain = [each.SerializeToString() for each in GOOD[rpc]]
    assert await answered(*(each + later for each in plain)) == await answered(*plain)
