"""Write-back for whoever looks on, waits or steers: lists, watch streams, waiting, access, records, bad requests."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from relayfile import errors
from relayfile.auth import ALL
from relayfile.model import NO_SEMANTICS, Failure, MemberKind, RawDelivery
from relayfile.status import from_rpc_error
from relayfile.store.engine import AdminActionFilter
from relayfile.store.plan.entry import WITHOUT_OBJECT, Fold, Member
from relayfile.store.servicers import operation_reading
from relayfile.store.sqlite import operation_lists
from relayfile.v1 import dead_letter_pb2, dead_letter_pb2_grpc, event_pb2, types_pb2, writeback_pb2
from relayfile.wire import from_us
from tests.support.store_node import Client
from tests.support.writeback import (
    CANCELED,
    CLAIMED,
    DELETE,
    PENDING,
    SUCCEEDED,
    SUPERSEDED,
    WRITE,
    Stage,
    seconds,
    staged,
)


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    async with staged(tmp_path) as made:
        yield made


async def some(stage: Stage, count: int = 5) -> list[str]:
    ids = []
    for number in range(count):
        stage.clock.advance(1)
        ids.append(await stage.write(f"/linear/issues/{number % 2}/{number}.json", b"%d" % number))
    return ids


async def failure(call: Any) -> errors.RelayfileError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return from_rpc_error(caught.value)


# --- lists


async def test_lists_go_page_by_page_newest_first(stage: Stage) -> None:
    ids = await some(stage, 7)
    listed: list[str] = []
    token = ""
    for _ in range(3):
        request = writeback_pb2.ListOperationsRequest(workspace_id="acme", page_size=3, page_token=token)
        answer = await stage.client.writeback.ListOperations(request, metadata=stage.client.metadata)
        listed += [each.operation_id for each in answer.operations]
        token = answer.next_page_token
    assert (listed, token) == (ids[::-1], "")


async def canceled_page(stage: Stage, token: str = "") -> writeback_pb2.ListOperationsResponse:
    """Of what no index tells."""
    chosen = writeback_pb2.OperationFilter(states=[CANCELED], kinds=[WRITE])
    request = writeback_pb2.ListOperationsRequest(workspace_id="acme", filter=chosen, page_size=2, page_token=token)
    return await stage.client.writeback.ListOperations(request, metadata=stage.client.metadata)


async def with_old_ones_canceled(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The oldest three of nine, newest first; the store looks at two rows at a time."""
    ids = (await some(stage, 9))[:3]
    cancel = writeback_pb2.CancelOperationsRequest(
        workspace_id="acme", operation_ids=ids, reason="not now", request_id="r"
    )
    await stage.client.writeback.CancelOperations(cancel, metadata=stage.client.metadata)
    monkeypatch.setattr(operation_lists, "LOOKED_AT_MAX", 2)
    return ids[::-1]


async def test_pages_are_full_however_few_match(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = await with_old_ones_canceled(stage, monkeypatch)
    first = await canceled_page(stage)
    await some(stage, 2)  # what is new meanwhile moves nothing
    last = await canceled_page(stage, first.next_page_token)
    assert [[each.operation_id for each in page.operations] for page in (first, last)] == [ids[:2], ids[2:]]
    assert not last.next_page_token


async def test_a_page_ends_after_so_many_looks_and_the_next_goes_on(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = await with_old_ones_canceled(stage, monkeypatch)
    monkeypatch.setattr(operation_reading, "LOOKS_MAX", 2)
    pages = [await canceled_page(stage)]
    while pages[-1].next_page_token:
        pages.append(await canceled_page(stage, pages[-1].next_page_token))
    assert not pages[0].operations, "four rows were looked at"
    assert [each.operation_id for page in pages for each in page.operations] == ids


async def test_a_page_token_belongs_to_its_filter(stage: Stage) -> None:
    await some(stage, 3)
    request = writeback_pb2.ListOperationsRequest(workspace_id="acme", page_size=1)
    answer = await stage.client.writeback.ListOperations(request, metadata=stage.client.metadata)
    request.page_token = answer.next_page_token
    request.filter.providers.append("linear")
    refused = await failure(stage.client.writeback.ListOperations(request, metadata=stage.client.metadata))
    assert isinstance(refused, errors.PageTokenInvalid)


async def test_filters_select(stage: Stage) -> None:
    ids = await some(stage)
    await stage.deliver(b"{}", object_id="issue/9", path="/linear/9.json")
    stage.clock.advance(1)
    nine = await stage.delete("/linear/9.json")
    github = await stage.write("/github/a.json", b"{}")
    claim = (await stage.claim(providers=["github"]))[0]
    await stage.succeed(claim)
    start = Timestamp()
    start.CopyFrom(from_us(stage.clock.now_us()))

    async def found(**fields: Any) -> list[str]:
        return [each.operation_id for each in await stage.operations(**fields)]

    assert await found(providers=["github"]) == [github]
    assert await found(kinds=[DELETE]) == [nine]
    assert await found(states=[SUCCEEDED]) == [github]
    assert await found(states=[PENDING, SUCCEEDED], providers=["github"]) == [github]
    assert await found(states=[PENDING], kinds=[WRITE]) == ids
    assert await found(path="/linear/issues/0") == ids[::2]
    assert await found(path="/linear/issues/0/2.json") == [ids[2]]
    assert await found(provider_object_id="issue/9") == [nine]
    assert await found(create_from=start) == [nine, github]
    assert await found(create_before=start) == ids
    assert await found(quarantine_id="none") == []


# --- watching


async def watched(
    call: AsyncIterable[writeback_pb2.WatchOperationsResponse],
    until: Callable[[writeback_pb2.WatchOperationsResponse], bool],
) -> list[writeback_pb2.Operation]:
    found: list[writeback_pb2.Operation] = []
    async with asyncio.timeout(10):
        async for message in call:
            found += message.operations
            if until(message):
                return found
    raise AssertionError("the stream ended")


async def test_a_watcher_gets_what_is_unfinished_then_every_change(stage: Stage) -> None:
    ids = await some(stage, 3)
    [claim] = await stage.claim(count=1)
    await stage.succeed(claim)
    request = writeback_pb2.WatchOperationsRequest(workspace_id="acme")
    call = stage.client.writeback.WatchOperations(request, metadata=stage.client.metadata)
    begun = await watched(call, lambda message: message.caught_up)
    assert sorted(each.operation_id for each in begun) == ids[1:]
    new = await stage.write("/linear/issues/1/1.json", b"new")
    changes = await watched(call, lambda message: any(each.operation_id == new for each in message.operations))
    assert {each.operation_id: each.state for each in changes} == {ids[1]: SUPERSEDED, new: PENDING}
    first = {each.operation_id: each.version for each in begun}
    assert all(each.version > first.get(each.operation_id, 0) for each in changes)
    call.cancel()


async def test_a_watcher_of_one_provider_hears_of_no_other(stage: Stage) -> None:
    request = writeback_pb2.WatchOperationsRequest(workspace_id="acme")
    request.filter.providers.append("github")
    call = stage.client.writeback.WatchOperations(request, metadata=stage.client.metadata)
    assert await watched(call, lambda message: message.caught_up) == []
    await some(stage, 3)
    github = await stage.write("/github/a.json", b"{}")
    changes = await watched(call, lambda message: bool(message.operations))
    assert [each.operation_id for each in changes] == [github]
    call.cancel()


# --- waiting


async def test_a_waiting_worker_is_woken(stage: Stage) -> None:
    waiting = asyncio.ensure_future(stage.claim(wait=seconds(20)))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    async with asyncio.timeout(5):
        operation_id = await stage.write("/linear/a.json", b"{}")
        [claim] = await waiting
        assert claim.operation.operation_id == operation_id
        await stage.write("/linear/a.json", b"2")
        waiting = asyncio.ensure_future(stage.claim(wait=seconds(20)))
        stage.clock.advance(1)
        await stage.succeed(claim)
        [claim] = await waiting
        assert claim.content == b"2"


async def test_waiting_costs_no_entries(stage: Stage) -> None:
    request = writeback_pb2.ClaimOperationsRequest(workspace_id="acme", worker_id="w", wait=seconds(0.2))
    before = stage.node.engine.commit_count  # type: ignore[attr-defined]  # the engine of a test is SQLite's
    calls = [stage.client.writeback.ClaimOperations(request, metadata=stage.client.metadata) for _ in range(20)]
    await asyncio.sleep(0.05)
    stage.clock.advance(0.2)
    answers = await asyncio.gather(*calls)
    assert all(not answer.claims for answer in answers)
    assert stage.node.engine.commit_count == before  # type: ignore[attr-defined]  # as above


async def test_a_claim_that_got_nothing_says_when_to_ask_again(stage: Stage) -> None:
    await stage.deliver(b"{}", path="/linear/1.json")
    await stage.delete("/linear/1.json")
    request = writeback_pb2.ClaimOperationsRequest(workspace_id="acme", worker_id="w")
    answer = await stage.client.writeback.ClaimOperations(request, metadata=stage.client.metadata)
    assert answer.next_claimable_time.ToMicroseconds() == stage.clock.now_us() + 10_000_000


async def test_a_worker_of_all_workspaces_takes_from_any(stage: Stage) -> None:
    operation_id = await stage.write("/linear/a.json", b"{}")
    request = writeback_pb2.ClaimOperationsRequest(worker_id="w")
    answer = await stage.client.writeback.ClaimOperations(request, metadata=stage.client.metadata)
    assert [claim.operation.operation_id for claim in answer.claims] == [operation_id]
    assert answer.claims[0].operation.workspace_id == "acme"
    narrow = stage.node.caller(["acme"])
    refused = await failure(narrow.writeback.ClaimOperations(request, metadata=narrow.metadata))
    assert isinstance(refused, errors.PermissionDenied)
    await narrow.channel.close()


async def test_a_thousand_claims_at_once_give_each_operation_once(stage: Stage) -> None:
    await some(stage, 8)
    request = writeback_pb2.ClaimOperationsRequest(workspace_id="acme", worker_id="w", operation_count_max=3)
    answers = await asyncio.gather(
        *(stage.client.writeback.ClaimOperations(request, metadata=stage.client.metadata) for _ in range(50))
    )
    ids = [claim.operation.operation_id for answer in answers for claim in answer.claims]
    assert len(ids) == len(set(ids)) == 8


# --- access


async def test_a_caller_sees_operations_of_paths_that_it_may_read(stage: Stage) -> None:
    ids = await some(stage, 4)
    token = stage.node.signer.mint("a", workspaces=ALL, ttl_s=3600, scopes=("relayfile:ops:read:/linear/issues/0/**",))
    narrow = Client(stage.node.address, token)
    request = writeback_pb2.ListOperationsRequest(workspace_id="acme")
    answer = await narrow.writeback.ListOperations(request, metadata=narrow.metadata)
    assert sorted(each.operation_id for each in answer.operations) == ids[::2]
    get = writeback_pb2.GetOperationRequest(workspace_id="acme", operation_id=ids[1])
    assert isinstance(
        await failure(narrow.writeback.GetOperation(get, metadata=narrow.metadata)), errors.OperationNotFound
    )
    get.operation_id = ids[0]
    await narrow.writeback.GetOperation(get, metadata=narrow.metadata)
    claim = writeback_pb2.ClaimOperationsRequest(workspace_id="acme", worker_id="w")
    refused = await failure(narrow.writeback.ClaimOperations(claim, metadata=narrow.metadata))
    assert isinstance(refused, errors.PermissionDenied)
    await narrow.channel.close()


# --- records


async def test_operations_of_a_deleted_file_of_its_own_rules_stay_hidden(stage: Stage) -> None:
    path = "/linear/issues/1.json"
    await stage.deliver(b"{}", path=path)
    ruled = types_pb2.Semantics(permissions=["deny:agent:eve", "public"])
    await stage.write(path, b"[]", semantics=ruled)
    await stage.succeed(await stage.one())
    await stage.delete(path)
    stage.clock.advance(11)
    claim = await stage.one()
    assert claim.operation.kind == DELETE
    await stage.succeed(claim)
    assert [event.path for event in (await stage.events())[1:]] == [path] * 5
    eve = stage.node.caller(ALL, subject="eve")
    listed = await eve.writeback.ListOperations(
        writeback_pb2.ListOperationsRequest(workspace_id="acme"), metadata=eve.metadata
    )
    assert not listed.operations
    heard = await eve.events.ListEvents(event_pb2.ListEventsRequest(workspace_id="acme"), metadata=eve.metadata)
    # Of the time when it had no rules; and that it got some, which is told by the rules above it.
    assert [event.type for event in heard.events] == [
        event_pb2.EVENT_TYPE_FILE_CREATED,
        event_pb2.EVENT_TYPE_ACCESS_CHANGED,
    ]
    await eve.channel.close()


@pytest.mark.parametrize("permissions", [["deny:agent:eve", "public"], ["a tag"]])
async def test_dead_letters_without_a_path_are_for_whom_the_rules_of_the_root_let_pass(
    stage: Stage, permissions: list[str]
) -> None:
    raw = RawDelivery(b"{broken", {})
    member = Member(
        MemberKind.FAILED, "envelope-1", "delivery-1", 0, "", "", stage.clock.now_us(), None, b"", "", NO_SEMANTICS,
        "", "", "", raw, Failure("MALFORMED_JSON", "no"),
    )  # fmt: skip
    node = stage.node.node
    fold = Fold("linear", WITHOUT_OBJECT + "1", (member,), "ingest-0")
    await node.committer.submit(stage.key, node.apply_folds, (fold,), change_count=1, byte_count=0)
    await stage.write("/.relayfile.acl", b"", semantics=types_pb2.Semantics(permissions=permissions))
    seen = {}
    for who in ("alice", "eve"):
        caller = stage.node.caller(ALL, subject=who)
        stub: dead_letter_pb2_grpc.DeadLetterServiceAsyncStub = dead_letter_pb2_grpc.DeadLetterServiceStub(
            caller.channel
        )
        request = dead_letter_pb2.ListDeadLettersRequest(workspace_id="acme")
        seen[who] = len((await stub.ListDeadLetters(request, metadata=caller.metadata)).dead_letters)
        await caller.channel.close()
    assert seen == {"alice": 1, "eve": int(permissions == ["a tag"])}


async def test_orders_are_recorded(stage: Stage) -> None:
    ids = await some(stage, 3)
    cancel = writeback_pb2.CancelOperationsRequest(
        workspace_id="acme", operation_ids=[*ids[:2], "nothing"], reason="not now", request_id="r"
    )
    answer = await stage.client.writeback.CancelOperations(cancel, metadata=stage.client.metadata)
    assert (answer.canceled_count, list(answer.skipped_operation_ids)) == (2, ["nothing"])
    assert await stage.client.writeback.CancelOperations(cancel, metadata=stage.client.metadata) == answer
    assert await stage.states() == [CANCELED, CANCELED, PENDING]
    async with stage.node.engine.view(stage.key) as view:
        actions = await view.admin_actions(AdminActionFilter(), "", 10)
    [action] = [each for each in actions if each.method.endswith("CancelOperations")]
    assert (action.actor, action.reason, action.detail) == ("agent-1", "not now", "canceled 2")
    # The files stay as they are, and the next edit is queued as any other.
    assert await stage.read("/linear/issues/0/0.json") == b"0"
    await stage.write("/linear/issues/0/0.json", b"again")
    claims = await stage.claim()
    assert sorted(claim.content for claim in claims) == [b"2", b"again"]


async def test_a_claim_that_is_cut_off_in_the_middle_is_the_workers_again(stage: Stage) -> None:
    await some(stage, 2)
    first = await stage.claim(request_id="same")
    assert len(first) == 2
    await stage.succeed(first[0])
    assert await stage.claim(request_id="same") == [first[1]]
    stage.clock.advance(30)
    again = await stage.claim(request_id="same")
    assert [claim.claim_number for claim in again] == [2]
    assert await stage.states(states=[CLAIMED]) == [CLAIMED]


# --- bad requests

CLAIM, RENEW, LIST = "ClaimOperations", "RenewClaim", "ListOperations"
BAD: list[tuple[str, Any, str]] = [
    (CLAIM, writeback_pb2.ClaimOperationsRequest(workspace_id="acme"), "worker_id"),
    (CLAIM, writeback_pb2.ClaimOperationsRequest(workspace_id="acme", worker_id="w" * 129), "worker_id"),
    (CLAIM, writeback_pb2.ClaimOperationsRequest(workspace_id="!", worker_id="w"), "workspace_id"),
    (CLAIM, writeback_pb2.ClaimOperationsRequest(workspace_id="acme", worker_id="w", lease=seconds(0.5)), "lease"),
    (CLAIM, writeback_pb2.ClaimOperationsRequest(workspace_id="acme", worker_id="w", lease=seconds(601)), "lease"),
    (CLAIM, writeback_pb2.ClaimOperationsRequest(workspace_id="acme", worker_id="w", kinds=[9]), "kinds[0]"),  # type: ignore[list-item]
    (CLAIM, writeback_pb2.ClaimOperationsRequest(workspace_id="acme", worker_id="w", providers=[""]), "providers[0]"),
    (
        CLAIM,
        writeback_pb2.ClaimOperationsRequest(workspace_id="acme", worker_id="w", operation_count_max=-1),
        "operation_count_max",
    ),
    (RENEW, writeback_pb2.RenewClaimRequest(workspace_id="acme", claim_number=1), "operation_id"),
    (RENEW, writeback_pb2.RenewClaimRequest(workspace_id="acme", operation_id="x"), "claim_number"),
    (LIST, writeback_pb2.ListOperationsRequest(workspace_id="acme", page_size=-1), "page_size"),
    (LIST, writeback_pb2.ListOperationsRequest(workspace_id="acme", min_revision=-1), "min_revision"),
    (
        LIST,
        writeback_pb2.ListOperationsRequest(
            workspace_id="acme",
            filter=writeback_pb2.OperationFilter(states=[writeback_pb2.OPERATION_STATE_UNSPECIFIED]),
        ),
        "filter.states[0]",
    ),
    (
        LIST,
        writeback_pb2.ListOperationsRequest(workspace_id="acme", filter=writeback_pb2.OperationFilter(path="/a/../b")),
        "filter.path",
    ),
    ("GetOperation", writeback_pb2.GetOperationRequest(workspace_id="acme"), "operation_id"),
    ("ReplayOperation", writeback_pb2.ReplayOperationRequest(workspace_id="acme"), "operation_id"),
    ("ApproveOperations", writeback_pb2.ApproveOperationsRequest(workspace_id="acme"), "filter"),
    (
        "CancelOperations",
        writeback_pb2.CancelOperationsRequest(
            workspace_id="acme", operation_ids=["a"], filter=writeback_pb2.OperationFilter()
        ),
        "filter",
    ),
]


@pytest.mark.parametrize(
    ("method", "request_", "field"), BAD, ids=[f"{row[0]}-{row[2]}-{n}" for n, row in enumerate(BAD)]
)
async def test_what_is_wrong_with_a_request_is_named(stage: Stage, method: str, request_: Any, field: str) -> None:
    refused = await failure(getattr(stage.client.writeback, method)(request_, metadata=stage.client.metadata))
    assert isinstance(refused, errors.InvalidArgument)
    assert field in [violation.field for violation in refused.violations]
