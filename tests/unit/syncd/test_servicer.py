import pathlib
from collections.abc import AsyncIterator

import pytest
from google.protobuf import message_factory

from relayfile.auth import ALL
from relayfile.errors import (
    InvalidArgument,
    MirrorAlreadyExists,
    MirrorNotFound,
    MirrorRefused,
    PageTokenInvalid,
    PermissionDenied,
    RequestIdReused,
)
from relayfile.syncd.registry import Registry
from relayfile.v1 import mirror_pb2
from tests.fakes.mirror import tree_of
from tests.fakes.registry import caller, servicer, serving
from tests.fakes.store import FakeStore


@pytest.fixture
async def registry(tmp_path: pathlib.Path) -> AsyncIterator[Registry]:
    store = FakeStore()
    store.fill({"/a/b": "1", "/c": "2"})
    async with store.served() as address, serving(address, tmp_path) as registry:
        caller(ALL)
        yield registry


def request(tmp_path: pathlib.Path, name: str = "mirror", **fields: object) -> mirror_pb2.CreateMirrorRequest:
    return mirror_pb2.CreateMirrorRequest(
        workspace_id="acme",
        directory=str(tmp_path / name),
        **fields,  # type: ignore[arg-type]  # its fields
    )


async def test_a_mirror_is_made_pulled_audited_and_shown(tmp_path: pathlib.Path, registry: Registry) -> None:
    service = servicer(registry)
    made = (await service.CreateMirror(request(tmp_path), None)).mirror
    assert (made.state, list(made.remote_paths)) == (mirror_pb2.MIRROR_STATE_STOPPED, ["/"])
    steps = [step async for step in service.PullMirror(mirror_pb2.PullMirrorRequest(mirror_id=made.mirror_id), None)]
    result = steps[-1].result
    assert (result.written_count, result.via, result.audit.verdict) == (
        2,
        mirror_pb2.PULL_VIA_EXPORT,
        mirror_pb2.MIRROR_VERDICT_EXACT,
    )
    assert steps[-2].progress.phase == mirror_pb2.PULL_PHASE_DONE
    assert tree_of(tmp_path) == {"/a/b": b"1", "/c": b"2"}
    (tmp_path / "mirror" / "c").write_text("mine")
    audit = await service.AuditMirror(mirror_pb2.AuditMirrorRequest(mirror_id=made.mirror_id, sweep=True), None)
    assert 0 < audit.audit.wire_bytes < 20_000, "an equal tree costs one small message"
    assert audit.audit.verdict == mirror_pb2.MIRROR_VERDICT_DIFFERENT
    assert list(audit.differing_remote_paths) == ["/c"]
    assert (audit.audit.differing_count, audit.audit.sweep_changed_count) == (1, 1)
    shown = (await service.GetMirror(mirror_pb2.GetMirrorRequest(mirror_id=made.mirror_id), None)).mirror
    assert (shown.outbox.pending_count, shown.outbox.pending_bytes) == (1, 4)
    assert (shown.file_counts.materialised_count, shown.file_counts.pending_count) == (1, 1)
    assert shown.revision == 2


async def test_bad_requests_name_every_field(tmp_path: pathlib.Path, registry: Registry) -> None:
    service = servicer(registry)
    bad = mirror_pb2.CreateMirrorRequest(
        workspace_id="no/such", directory="relative", remote_paths=["/a", "/a/b", "/x/../y"], token_file="here"
    )
    with pytest.raises(InvalidArgument) as caught:
        await service.CreateMirror(bad, None)
    assert {each.field.partition("[")[0] for each in caught.value.violations} == {
        "workspace_id",
        "directory",
        "remote_paths",
        "token_file",
    }
    with pytest.raises(InvalidArgument):
        await service.GetMirror(mirror_pb2.GetMirrorRequest(), None)
    with pytest.raises(MirrorNotFound):
        await service.GetMirror(mirror_pb2.GetMirrorRequest(mirror_id="none"), None)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("x")
    with pytest.raises(MirrorRefused, match="ROOT_NOT_EMPTY"):
        await service.CreateMirror(request(tmp_path, "full"), None)
    assert len(registry) == 0


async def test_i10_no_mirror_lies_around_or_in_another(tmp_path: pathlib.Path, registry: Registry) -> None:
    service = servicer(registry)
    (tmp_path / "outer").mkdir()
    await service.CreateMirror(request(tmp_path, "outer/inner"), None)
    with pytest.raises(MirrorRefused, match="ROOT_AROUND_OTHER_MIRROR"):
        await service.CreateMirror(request(tmp_path, "outer", adopt_existing_files=True), None)
    with pytest.raises(MirrorRefused, match="ROOT_IN_OTHER_MIRROR"):
        await service.CreateMirror(request(tmp_path, "outer/inner/more"), None)
    assert len(registry) == 1


async def test_a_repeated_request_makes_one_mirror(tmp_path: pathlib.Path, registry: Registry) -> None:
    service = servicer(registry)
    first = await service.CreateMirror(request(tmp_path, request_id="r1"), None)
    again = await service.CreateMirror(request(tmp_path, request_id="r1"), None)
    assert first.mirror.mirror_id == again.mirror.mirror_id
    with pytest.raises(RequestIdReused):
        await service.CreateMirror(request(tmp_path, "other", request_id="r1"), None)
    with pytest.raises(MirrorAlreadyExists):
        await service.CreateMirror(request(tmp_path), None)
    updated = await service.CreateMirror(request(tmp_path, update_existing=True, follow=True), None)
    assert (updated.mirror.mirror_id, updated.mirror.follow) == (first.mirror.mirror_id, True)


async def test_lists_are_paged_and_show_only_what_the_token_grants(tmp_path: pathlib.Path, registry: Registry) -> None:
    service = servicer(registry)
    for index in range(3):
        await service.CreateMirror(request(tmp_path, f"m{index}"), None)
    page = await service.ListMirrors(mirror_pb2.ListMirrorsRequest(page_size=2), None)
    rest = await service.ListMirrors(mirror_pb2.ListMirrorsRequest(page_size=2, page_token=page.next_page_token), None)
    assert (len(page.mirrors), len(rest.mirrors), rest.next_page_token) == (2, 1, "")
    with pytest.raises(PageTokenInvalid):
        await service.ListMirrors(
            mirror_pb2.ListMirrorsRequest(workspace_id="acme", page_token=page.next_page_token), None
        )
    inside = await service.ListMirrors(mirror_pb2.ListMirrorsRequest(directory=f"{tmp_path}/m1/a"), None)
    assert [mirror.directory for mirror in inside.mirrors] == [f"{tmp_path}/m1"]
    caller("other")
    assert not (await service.ListMirrors(mirror_pb2.ListMirrorsRequest(), None)).mirrors
    with pytest.raises(PermissionDenied):
        await service.GetMirror(mirror_pb2.GetMirrorRequest(mirror_id=page.mirrors[0].mirror_id), None)


async def test_a_repeated_pull_or_audit_is_answered_as_the_first_was(
    tmp_path: pathlib.Path, registry: Registry
) -> None:
    service = servicer(registry)
    mirror_id = (await service.CreateMirror(request(tmp_path), None)).mirror.mirror_id
    pull = mirror_pb2.PullMirrorRequest(mirror_id=mirror_id, request_id="p")
    first = [step async for step in service.PullMirror(pull, None)][-1]
    assert [step async for step in service.PullMirror(pull, None)] == [first]
    other = mirror_pb2.PullMirrorRequest(mirror_id=mirror_id, request_id="p", full=True)
    with pytest.raises(RequestIdReused):
        await anext(aiter(service.PullMirror(other, None)))
    audit = mirror_pb2.AuditMirrorRequest(mirror_id=mirror_id, request_id="a")
    answer = await service.AuditMirror(audit, None)
    (tmp_path / "mirror" / "c").write_text("mine")
    assert await service.AuditMirror(audit, None) == answer
    with pytest.raises(InvalidArgument) as caught:
        await service.AuditMirror(mirror_pb2.AuditMirrorRequest(differing_paths_max=-1, request_id="a" * 129), None)
    assert {each.field for each in caught.value.violations} == {"mirror_id", "differing_paths_max", "request_id"}
    with pytest.raises(InvalidArgument):
        await anext(aiter(service.PullMirror(mirror_pb2.PullMirrorRequest(request_id="p"), None)))


REQUIRED = {
    "plan_id": "x",
    "decision": mirror_pb2.DELETE_DECISION_APPROVE,
    "trash_ids": ["x"],
    "conflict_id": "x",
    "choice": mirror_pb2.CONFLICT_CHOICE_MINE,
}
RPCS = mirror_pb2.DESCRIPTOR.services_by_name["MirrorService"].methods


@pytest.mark.parametrize("rpc", [rpc.name for rpc in RPCS if rpc.name not in ("CreateMirror", "ListMirrors")])
async def test_every_call_about_a_mirror_of_another_workspace_is_refused(
    tmp_path: pathlib.Path, registry: Registry, rpc: str
) -> None:
    service = servicer(registry)
    mirror_id = (await service.CreateMirror(request(tmp_path), None)).mirror.mirror_id
    kind = message_factory.GetMessageClass(mirror_pb2.DESCRIPTOR.message_types_by_name[f"{rpc}Request"])
    fields = {name: value for name, value in REQUIRED.items() if name in kind.DESCRIPTOR.fields_by_name}
    about = {"mirror_ids": [mirror_id]} if rpc == "WatchMirrors" else {"mirror_id": mirror_id}
    caller("other")
    answer = getattr(service, rpc)(kind(**fields, **about), None)
    with pytest.raises(PermissionDenied):
        await (anext(answer) if hasattr(answer, "__anext__") else answer)
    assert len(registry) == 1
