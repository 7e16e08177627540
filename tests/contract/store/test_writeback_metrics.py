"""What `/metrics` tells of write-back: ends, claims, what waits, requests and targets that rest."""

from pathlib import Path

from prometheus_client import Counter, Gauge, Histogram

from relayfile.store.plan.writeback.rows import OperationState
from relayfile.store.sqlite.engine import SqliteEngine
from relayfile.store.sqlite.operation_census import OperationCensus
from tests.contract.store.test_outward import Scene, played
from tests.fakes.target import Reply
from tests.support.writeback import DEAD_LETTERED, SUCCEEDED, staged


def told(instrument: Counter | Gauge | Histogram, suffix: str = "") -> dict[tuple[str, ...], float]:
    """Values by label values, of the samples whose names end so."""
    return {
        tuple(sample.labels.values()): sample.value
        for family in instrument.collect()
        for sample in family.samples
        if sample.name.endswith(suffix)
    }


async def broken(scene: Scene) -> bool:
    return told(scene.stage.node.node.writeback.breakers_open)["linear", "edits"] == 1


async def test_requests_ends_and_claims_are_counted(tmp_path: Path) -> None:
    async with played(tmp_path) as scene:
        figures = scene.stage.node.node.writeback
        scene.target.replies = [Reply(503), Reply(200)]
        done = await scene.stage.write("/linear/issues/1.json", b"1")
        await scene.reaches(done, SUCCEEDED, step_s=0.5)
        scene.target.replies = [Reply(422)]
        await scene.reaches(await scene.stage.write("/linear/issues/2.json", b"2"), DEAD_LETTERED, step_s=0.5)
        ends = {labels: count for labels, count in told(figures.ends_total, "_total").items() if count}
        assert ends == {("write", "succeeded"): 1, ("write", "dead_lettered"): 1}
        assert told(figures.claims_total, "_total") == {("write",): 3}
        results = told(figures.requests_total, "_total")
        assert results == {("linear", "failed"): 1, ("linear", "succeeded"): 1, ("linear", "refused"): 1}
        assert told(figures.request_seconds, "_count") == {("linear",): 3}
        assert told(figures.breakers_open) == {("linear", "edits"): 0, ("linear", "fetches"): 0}


async def test_a_target_that_rests_shows_until_it_answers(tmp_path: Path) -> None:
    async with played(tmp_path) as scene:
        scene.target.replies = [Reply(500)] * 5 + [Reply(200)]
        ids = [await scene.stage.write(f"/linear/issues/{number}.json", b"x") for number in range(5)]
        await scene.until(lambda: broken(scene))
        for operation_id in ids:
            await scene.reaches(operation_id, SUCCEEDED, step_s=1.0)
        assert not await broken(scene)


async def test_what_waits_is_counted_by_state_with_the_age_of_the_oldest(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        assert isinstance(stage.node.engine, SqliteEngine)
        census = OperationCensus(stage.node.engine.snapshot, stage.clock)
        assert (await census.count()).oldest_claimable_us is None
        first_us = stage.clock.now_us()
        for number in range(3):
            await stage.write(f"/linear/issues/{number}.json", b"x")
            await stage.write(f"/github/issues/{number}.json", b"x")
            stage.clock.advance(10)
        stage.clock.advance(20)
        count = await census.count()
        assert count.by_state == {
            OperationState.PENDING: 6,
            OperationState.CLAIMED: 0,
            OperationState.QUARANTINED: 0,
        }
        assert count.oldest_claimable_us is not None
        assert 0 <= count.oldest_claimable_us - first_us < 5_000_000
        assert len(await stage.claim(1)) == 1
        stage.clock.advance(11)
        again = await census.count()
        assert (again.by_state[OperationState.PENDING], again.by_state[OperationState.CLAIMED]) == (5, 1)
