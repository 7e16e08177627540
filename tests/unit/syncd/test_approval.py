"""I4: a halted mirror goes on when somebody has looked at exactly what it would delete."""

import pathlib

import pytest

from relayfile.auth import ALL
from relayfile.errors import InvalidArgument, MirrorRefused, PermissionDenied, PlanChanged
from relayfile.settings import SyncdSettings
from relayfile.syncd.mirror import Mirror
from relayfile.syncd.progress import Via
from relayfile.syncd.registry import Registry
from relayfile.syncd.shown import MirrorState
from relayfile.v1 import mirror_pb2
from tests.fakes.mirror import tree_of
from tests.fakes.registry import add, caller, servicer, serving, until
from tests.fakes.store import FakeStore

FILES = {f"/gone/{index}": f"{index}" for index in range(300)}
APPROVE = mirror_pb2.DELETE_DECISION_APPROVE


def filled() -> FakeStore:
    store = FakeStore()
    store.fill({**FILES, "/kept": "x"})
    return store


def empty(store: FakeStore) -> None:
    for path in FILES:
        store.delete(path)


async def decide(registry: Registry, mirror: Mirror, plan_id: str, **fields: object) -> mirror_pb2.Mirror:
    request = mirror_pb2.ApproveDeletesRequest(
        mirror_id=mirror.record.mirror_id,
        plan_id=plan_id,
        **{"decision": APPROVE, **fields},  # type: ignore[arg-type]  # its fields
    )
    return (await servicer(registry).ApproveDeletes(request, None)).mirror


async def shown(registry: Registry, mirror: Mirror) -> mirror_pb2.DeletePlan:
    request = mirror_pb2.GetMirrorRequest(mirror_id=mirror.record.mirror_id)
    return (await servicer(registry).GetMirror(request, None)).mirror.halt.delete_plan


async def test_i4_an_approved_plan_is_carried_out_and_the_mirror_follows_again(tmp_path: pathlib.Path) -> None:
    store = filled()
    caller(ALL)
    async with store.served() as address, serving(address, tmp_path) as registry:
        mirror = add(registry, tmp_path)
        await until(lambda: mirror.seen.state is MirrorState.FOLLOWING)
        empty(store)
        await store.notify()
        await until(lambda: mirror.seen.state is MirrorState.HALTED)
        plan = await shown(registry, mirror)
        assert (plan.rule, plan.delete_count, plan.tracked_count) == ("OVER_HALF", 300, 301)
        assert plan.delete_bytes == sum(map(len, FILES.values()))
        assert len(plan.sample_remote_paths) == 100
        after = await decide(registry, mirror, plan.plan_id, request_id="r")
        assert not after.HasField("halt")
        assert tree_of(tmp_path) == {"/kept": b"x"}
        await until(lambda: mirror.seen.state is MirrorState.FOLLOWING)
        store.put("/later", "y")
        await store.notify()
        await until(lambda: tree_of(tmp_path).get("/later") == b"y")
        assert (await decide(registry, mirror, plan.plan_id, request_id="r")).mirror_id == after.mirror_id
        assert len(list((tmp_path / "mirror" / ".relayfile" / "trash").iterdir())) == 300


async def test_i4_the_plan_is_the_same_after_a_restart_and_another_when_more_goes(tmp_path: pathlib.Path) -> None:
    store = filled()
    caller(ALL)
    async with store.served() as address:
        async with serving(address, tmp_path) as registry:
            mirror = add(registry, tmp_path, follow=False)
            await mirror.pull(full=False, via=Via.ANY)
            empty(store)
            with pytest.raises(MirrorRefused, match="MASS_DELETE"):
                await mirror.pull(full=False, via=Via.ANY)
            first = await shown(registry, mirror)
        async with serving(address, tmp_path) as registry:
            (mirror,) = registry
            assert await shown(registry, mirror) == first
            assert mirror.seen.state is MirrorState.HALTED
            store.put("/gone/7", "it came back")
            with pytest.raises(MirrorRefused, match="MASS_DELETE"):
                await mirror.pull(full=False, via=Via.ANY)
            second = await shown(registry, mirror)
            assert (second.delete_count, second.plan_id != first.plan_id) == (299, True)
            with pytest.raises(PlanChanged):
                await decide(registry, mirror, first.plan_id)
            assert len(tree_of(tmp_path)) == 301
            await decide(registry, mirror, second.plan_id)
            assert tree_of(tmp_path).keys() == {"/kept", "/gone/7"}
            await mirror.pull(full=False, via=Via.ANY)
            assert tree_of(tmp_path)["/gone/7"] == b"it came back"
            with pytest.raises(PlanChanged):
                await decide(registry, mirror, second.plan_id)


async def test_i4_more_than_a_batch_of_deletes_is_carried_out_and_counted(tmp_path: pathlib.Path) -> None:
    store = filled()
    caller(ALL)
    settings = SyncdSettings(data_dir=tmp_path, sync_batch_files_max=40, delete_files_max=20)
    async with store.served() as address, serving(address, tmp_path, settings) as registry:
        mirror = add(registry, tmp_path, follow=False)
        await mirror.pull(full=False, via=Via.ANY)
        empty(store)
        with pytest.raises(MirrorRefused, match="OVER_COUNT: 300 of 301"):
            await mirror.pull(full=False, via=Via.ANY)
        await decide(registry, mirror, (await shown(registry, mirror)).plan_id)
        assert tree_of(tmp_path) == {"/kept": b"x"}
        # An approval is for what was looked at: the next mass is asked about again.
        store.fill(FILES)
        await mirror.pull(full=False, via=Via.ANY)
        empty(store)
        with pytest.raises(MirrorRefused, match="OVER_COUNT"):
            await mirror.pull(full=False, via=Via.ANY)


async def test_i4_a_file_edited_meanwhile_survives_an_approval(tmp_path: pathlib.Path) -> None:
    store = filled()
    caller(ALL)
    async with store.served() as address, serving(address, tmp_path) as registry:
        mirror = add(registry, tmp_path, follow=False, read_only=False)
        await mirror.pull(full=False, via=Via.ANY)
        empty(store)
        with pytest.raises(MirrorRefused):
            await mirror.pull(full=False, via=Via.ANY)
        (tmp_path / "mirror" / "gone" / "3").write_text("mine")
        await decide(registry, mirror, (await shown(registry, mirror)).plan_id)
        assert tree_of(tmp_path) == {"/kept": b"x", "/gone/3": b"mine"}


async def test_bad_decisions_are_told_by_field(tmp_path: pathlib.Path) -> None:
    store = filled()
    caller(ALL)
    async with store.served() as address, serving(address, tmp_path) as registry:
        mirror = add(registry, tmp_path, follow=False)
        service = servicer(registry)
        with pytest.raises(InvalidArgument) as caught:
            await service.ApproveDeletes(mirror_pb2.ApproveDeletesRequest(request_id="r" * 129), None)
        fields = {each.field for each in caught.value.violations}
        assert fields == {"mirror_id", "plan_id", "decision", "request_id"}
        with pytest.raises(InvalidArgument, match="deletes from the directory"):
            await decide(registry, mirror, "x", decision=mirror_pb2.DELETE_DECISION_RESTORE)
        with pytest.raises(PlanChanged):
            await decide(registry, mirror, "none")
        caller("other")
        with pytest.raises(PermissionDenied):
            await decide(registry, mirror, "x")
