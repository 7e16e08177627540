"""The status across workspaces: nodes that answer, nodes that do not, reports of other processes."""

from collections.abc import Sequence

import grpc
import grpc.aio
import pytest

from relayfile import alerts
from relayfile.ingest.status.owner_outcomes import OwnerAnswer, OwnerOutcomes
from relayfile.ingest.status.status_report import HeldHere, merge
from relayfile.v1 import ingest_pb2, shard_pb2

NOW_US = 1_800_000_000_000_000
HERE = HeldHere("ingest-1", [], {}, 0, 0, 0)


def answer(source: str, applied: int, *reports: shard_pb2.IngestReport) -> OwnerAnswer:
    outcomes = shard_pb2.GetOutcomesResponse(reports=reports)
    outcomes.providers.add(provider="github", applied=applied)
    return OwnerAnswer(source, outcomes)


def report(pending: int, refused: int, age_s: int) -> shard_pb2.IngestReport:
    made = shard_pb2.IngestReport(ingest_id="ingest-2")
    made.report_time.FromMicroseconds(NOW_US - age_s * 1_000_000)
    made.pending.add(provider="github", pending=pending, refused=refused, oldest_received_unix_us=NOW_US - 5_000_000)
    return made


def test_nodes_are_added_up_and_one_that_is_away_is_named() -> None:
    shards = [
        answer("shard a:1", 5, report(2, 1, age_s=3)),
        answer("shard b:1", 7, report(1, 4, age_s=9)),
        OwnerAnswer("shard c:1", None, "UNAVAILABLE"),
    ]
    status = merge(shards, HERE, alerts.BALANCED, "", NOW_US)
    [github] = status.providers
    assert (github.applied, github.pending, github.refused, github.accepted) == (12, 3, 5, 15)
    assert [(part.source, part.missing_reason, part.age.seconds, part.pending) for part in status.parts] == [
        ("shard a:1", "", 0, 0),
        ("shard b:1", "", 0, 0),
        ("shard c:1", "UNAVAILABLE", 0, 0),
        ("ingest-2", "", 9, 3),
        ("ingest-1", "", 0, 0),
    ]


@pytest.mark.parametrize(
    ("limits", "health"),
    [
        (alerts.STRICT, ingest_pb2.PROVIDER_HEALTH_HEALTHY),
        (alerts.AlertLimits(4.0, 0.0), ingest_pb2.PROVIDER_HEALTH_LAGGING),
    ],
)
def test_health_follows_the_limits(limits: alerts.AlertLimits, health: int) -> None:
    status = merge([answer("shard", 5, report(2, 0, age_s=1))], HERE, limits, "", NOW_US)
    assert [each.health for each in status.providers] == [health]


async def get_outcomes(request: bytes, context: object) -> bytes:
    response = shard_pb2.GetOutcomesResponse()
    response.providers.add(provider="github", applied=1)
    return response.SerializeToString()


async def test_a_node_that_is_away_does_not_hide_the_others() -> None:
    server = grpc.aio.server()
    handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
        "GetOutcomes": grpc.unary_unary_rpc_method_handler(get_outcomes)
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("relayfile.v1.ShardService", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    here, away = f"127.0.0.1:{port}", "127.0.0.1:1"
    async with grpc.aio.insecure_channel(here) as up, grpc.aio.insecure_channel(away) as down:
        source = OwnerOutcomes(lambda _: down, lambda: {here: up, away: down}, lambda: (), timeout_s=5.0)
        found: Sequence[OwnerAnswer] = await source.outcomes("")
        assert [(each.source, each.outcomes is None, each.missing_reason) for each in found] == [
            (f"shard {here}", False, ""),
            (f"shard {away}", True, "UNAVAILABLE"),
        ]
        [one] = await source.outcomes("acme")
        assert (one.source, one.missing_reason) == ("shard", "UNAVAILABLE")
    await server.stop(None)


@pytest.mark.parametrize(
    ("paused", "is_paused"), [({"github"}, True), ({""}, True), ({"linear"}, False), (set(), False)]
)
def test_with_the_owner_away_a_process_says_what_it_was_told_is_paused(paused: set[str], is_paused: bool) -> None:
    pending = [shard_pb2.PendingReport(provider="github", pending=1, oldest_received_unix_us=NOW_US - 90_000_000)]
    here = HeldHere("ingest-1", pending, {}, 0, 0, 0, frozenset(paused))
    [github] = merge([OwnerAnswer("shard", None, "UNAVAILABLE")], here, alerts.BALANCED, "", NOW_US).providers
    assert github.paused is is_paused
    lagging = ingest_pb2.PROVIDER_HEALTH_LAGGING
    assert github.health == (ingest_pb2.PROVIDER_HEALTH_HEALTHY if is_paused else lagging), (
        "what is paused waits on purpose"
    )
    told_otherwise = merge([answer("shard", 5)], here, alerts.BALANCED, "", NOW_US).providers
    assert not any(each.paused for each in told_otherwise)
