"""What `relayfile top` makes of what the parts of a system say, and of those that say nothing."""

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest

from relayfile.cli.connection import Connection
from relayfile.cli.shown import value_json
from relayfile.cli.top_figures import Figures, figures_of
from relayfile.cli.top_parts import Part, System
from relayfile.cli.top_screen import BAD, Line, age, duration, rate, screen, size
from relayfile.clock import ManualClock
from relayfile.errors import RelayfileError, Unavailable
from relayfile.local.layout import Layout
from relayfile.v1 import admin_pb2, ingest_pb2, mirror_pb2, topology_pb2

Value = TypeVar("Value")
AWAY = Unavailable(what="peer (connection refused)")


def says(*answers: Value | RelayfileError) -> Callable[[], Awaitable[Value]]:
    """Answers in turn, the last one for ever."""
    left = list(answers)

    async def ask() -> Value:
        answer = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(answer, RelayfileError):
            raise answer
        return answer

    return ask


def topology(nodes: int = 2) -> topology_pb2.Topology:
    made = topology_pb2.Topology(cluster_id="c", shard_count=256)
    for index in range(nodes):
        made.nodes.add(node_index=index, address=f"node-{index}:7450")
        made.assignments.add(
            node_index=index, state=topology_pb2.SHARD_STATE_SERVING, shard_ids=range(index, 256, nodes)
        )
    return made


def stats(index: int, changes: int = 0, *, started_s: int = 1, letters: int = 0) -> admin_pb2.NodeStats:
    made = admin_pb2.NodeStats(pending_dead_letter_count=letters, operation_counts={"pending": 2})
    made.node.node_index, made.node.state = index, topology_pb2.STORE_NODE_STATE_SERVING
    made.node.start_time.FromSeconds(started_s)
    made.commits.mutation_count = changes
    made.receive_to_commit.p99.FromMilliseconds(12)
    made.queues.add(name="commits", depth=3, depth_bytes=900, bytes_max=1_000)
    made.rpcs.add(method="FileService/GetFile", started_count=changes * 2, ended_counts={"OK": changes, "INTERNAL": 1})
    made.top_workspaces.add(workspace_id="acme", mutations_per_second=4.5)
    made.ingest_processes.add(ingest_id="ingest-0", pending_count=index + 1)
    return made


def status(accepted: int, *, sources: tuple[str, ...] = ("shard a", "ingest-0")) -> ingest_pb2.GetIngestStatusResponse:
    made = ingest_pb2.GetIngestStatusResponse(spool_bytes=2_000, spool_bytes_max=1 << 30, queued_objects=7)
    provider = made.providers.add(provider="github", accepted=accepted, pending=4, dead_lettered=1)
    provider.oldest_pending_age.FromMilliseconds(1_500)
    provider.failure_reasons["NOT_JSON"] = 1
    provider.health = ingest_pb2.PROVIDER_HEALTH_LAGGING
    for source in sources:
        made.parts.add(source=source, pending=4)
    return made


def mirror(
    number: int, state: mirror_pb2.MirrorState.ValueType = mirror_pb2.MIRROR_STATE_FOLLOWING
) -> mirror_pb2.Mirror:
    return mirror_pb2.Mirror(mirror_id=f"m{number}", workspace_id="acme", directory=f"/srv/{number:03}", state=state)


def system(clock: ManualClock, *, nodes: int = 2) -> System:
    """Whose parts a test replaces."""
    connection = Connection("node-0:7450", "", "", "", "", Layout(Path("/nowhere")), ("node-0:7450",))
    made = System(connection, clock)
    made.topology = part("shard map", says(topology(nodes)), clock)
    made.nodes = {index: part(f"node {index}", says(stats(index)), clock) for index in range(nodes)}
    return made


def part(name: str, ask: Callable[[], Awaitable[Value]], clock: ManualClock) -> Part[Value]:
    return Part(name, ask, clock, lambda _: None)


def text(lines: list[Line]) -> str:
    return "\n".join(line.text for line in lines)


async def seen(made: System, clock: ManualClock, *, looks: int = 2, every_s: float = 2.0) -> Figures:
    for number in range(looks):
        clock.advance(every_s if number else 0.0)
        await made.look()
    return figures_of(made, clock.now_us())


async def test_rates_are_between_the_first_and_the_last_of_a_few_looks() -> None:
    clock = ManualClock()
    made = system(clock, nodes=1)
    made.nodes[0] = part("node 0", says(stats(0, 100), stats(0, 110), stats(0, 180)), clock)
    await made.look()
    first = figures_of(made, clock.now_us())
    assert first.nodes[0].changes_per_s is None, "one look tells no rate"
    figures = await seen(made, clock, looks=2, every_s=4.0)
    (node,) = figures.nodes
    assert (node.changes_per_s, node.calls_per_s, node.failed_calls_per_s) == (20.0, 40.0, 0.0)
    assert (node.state, node.age_s, node.shard_count, node.queued_changes) == ("serving", 0.0, 256, 3)
    assert figures.busiest[0].workspace_id == "acme"
    clock.advance(4.0)
    for _ in range(3):
        await made.look()
        clock.advance(10.0)
    assert figures_of(made, clock.now_us()).nodes[0].changes_per_s == 0.0, "old looks no longer count"


async def test_a_process_that_started_anew_has_no_rate_before_its_second_look() -> None:
    clock = ManualClock()
    counted = Part(
        "node 0",
        says(stats(0, 900), stats(0, 5, started_s=2), stats(0, 25, started_s=2)),
        clock,
        lambda each: each.node.start_time.seconds,
    )
    rates = []
    for _ in range(3):
        await counted.look()
        rates.append(counted.per_second(lambda each: each.commits.mutation_count))
        clock.advance(2.0)
    assert rates == [None, None, 10.0]


async def test_a_part_that_is_away_keeps_its_figures_and_tells_their_age() -> None:
    clock = ManualClock()
    made = system(clock)
    made.nodes[1] = part("node 1", says(stats(1, letters=3), stats(1, letters=3), AWAY), clock)
    await seen(made, clock)
    clock.advance(40.0)
    await made.look()
    clock.advance(2.0)
    figures = figures_of(made, clock.now_us())
    here, away = figures.nodes
    assert (here.state, away.state, away.age_s, away.dead_letters) == ("serving", "no answer", 42.0, 3)
    assert (away.changes_per_s, away.calls_per_s) == (None, None)
    assert not figures.all_answer
    lines = screen(figures, 80, 24)
    assert lines[2] == Line("node 1: no answer for 42s (UNAVAILABLE); 2 of 3 parts answered within 2s", BAD)
    rows = [line for line in lines if "no answer  " in line.text]
    assert [line.style for line in rows] == [BAD]
    # It is back.
    made.nodes[1] = part("node 1", says(stats(1)), clock)
    await made.look()
    assert figures_of(made, clock.now_us()).all_answer


async def test_nobody_answers_and_that_is_shown_too() -> None:
    clock = ManualClock()
    made = system(clock)
    made.topology = part("shard map", says(AWAY), clock)
    made.nodes = {}
    figures = await seen(made, clock)
    assert (figures.nodes, figures.all_answer) == ((), False)
    assert "shard map: no answer (UNAVAILABLE)" in text(screen(figures, 80, 24))


async def test_what_comes_in_is_shown_with_its_processes_and_providers() -> None:
    clock = ManualClock()
    made = system(clock)
    made.ingest = part("ingest", says(status(100), status(150)), clock)
    figures = await seen(made, clock)
    assert figures.intake is not None
    assert (figures.intake.accepted_per_s, figures.intake.pending, figures.intake.oldest_pending_s) == (25.0, 4, 1.5)
    assert [(each.ingest_id, each.is_asked, each.pending) for each in figures.ingest] == [("ingest-0", True, 4)]
    shown = text(screen(figures, 80, 24))
    assert "25/s in, 25/s decided, 4 pending (2s)" in shown
    assert "\ngithub    lagging    25 " in shown
    assert "1 NOT_JSON" in shown


async def test_ingest_that_is_away_is_known_by_what_it_reported_to_the_nodes() -> None:
    clock = ManualClock()
    made = system(clock)
    made.ingest = part("ingest", says(AWAY), clock)
    figures = await seen(made, clock)
    assert [(each.ingest_id, each.is_asked, each.pending) for each in figures.ingest] == [("ingest-0", False, 3)]
    assert "ingest: no answer (UNAVAILABLE)" in text(screen(figures, 80, 24))


async def test_a_shard_that_comes_back_is_no_burst() -> None:
    clock = ManualClock()
    connection = Connection("", "ingest:7431", "", "", "", Layout(Path("/nowhere")))
    made = System(connection, clock)
    assert made.ingest is not None
    made.ingest._ask = says(status(1_000), status(400, sources=("ingest-0",)), status(1_010))
    for expected in (None, None, None):
        await made.ingest.look()
        clock.advance(2.0)
        assert made.ingest.per_second(lambda each: each.providers[0].accepted) is expected


async def test_the_screen_holds_what_matters_in_80_by_24() -> None:
    clock = ManualClock()
    made = system(clock, nodes=12)
    made.nodes[11] = part("node 11", says(AWAY), clock)
    made.ingest = part("ingest", says(status(100)), clock)
    mirrors = [mirror(number) for number in range(300)]
    mirrors.append(mirror(999, mirror_pb2.MIRROR_STATE_HALTED))
    mirrors[-1].halt.reason = "MASS_DELETE"
    mirrors[-1].directory = "/srv/" + "a" * 200
    made.mirrors = part("syncd", says(mirrors), clock)
    figures = await seen(made, clock)
    lines = screen(figures, 80, 24)
    assert len(lines) == 24
    assert max(len(line.text) for line in lines) <= 80
    shown = text(lines)
    for heading in ("NODE ", "INGEST ", "PROVIDER ", "MIRROR ", "BUSIEST "):
        assert heading in shown
    stuck = next(line for line in lines if "mass_delete" in line.text)
    assert stuck.style == BAD
    assert stuck.text.startswith("...aaa")
    assert all(line.text.endswith("CONFLICTS") for line in lines if line.text.startswith("MIRROR "))
    assert shown.index("no answer") < shown.index("serving"), "what is wrong comes first"
    assert "... 297 more" in shown
    tiny = screen(figures, 40, 5)
    assert len(tiny) == 5
    assert max(len(line.text) for line in tiny) <= 40
    everything = text(screen(figures))
    assert everything.count("following") == 300


@pytest.mark.parametrize("width", [0, *range(1, 12), 80])
async def test_no_terminal_is_too_narrow_and_no_name_moves_its_cursor(width: int) -> None:
    clock = ManualClock()
    made = system(clock)
    hostile = mirror(1)
    hostile.directory = "/srv/\x1b[2J\x9b31m\r\nNODE"
    made.mirrors = part("syncd", says([hostile]), clock)
    lines = screen(await seen(made, clock), width, 0)
    assert all(line.text.isprintable() for line in lines)
    assert not width or max(len(line.text) for line in lines) <= width
    assert width or any("/srv/?[2J?31m??NODE" in line.text for line in lines)


async def test_shards_that_nobody_serves_are_the_first_thing_said_of_nodes() -> None:
    clock = ManualClock()
    made = system(clock)
    changed = topology()
    changed.assignments[1].state = topology_pb2.SHARD_STATE_STARTING
    made.topology = part("shard map", says(changed), clock)
    figures = await seen(made, clock)
    assert Line("shards not served: 128 starting at node 1", BAD) in screen(figures, 80, 24)


async def test_machines_get_every_figure_by_name() -> None:
    clock = ManualClock()
    made = system(clock, nodes=1)
    made.mirrors = part("syncd", says([mirror(1)]), clock)
    told = json.loads(value_json(await seen(made, clock)))
    assert told["nodes"][0]["receive_to_commit_p99_s"] == 0.012
    assert told["parts"][0] == {"name": "shard map", "age_s": 0.0, "failure": "", "message": ""}
    assert told["shards"] == [{"node_index": 0, "state": "serving", "shard_count": 256}]
    assert told["mirrors"][0]["directory"] == "/srv/001"
    assert told["mirrors"][0]["fresh_s"] is None


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (rate(None), "-"),
        (rate(0.0), "0"),
        (rate(0.25), "0.2"),
        (rate(99.6), "100"),
        (rate(12_345.0), "12.3k"),
        (size(0), "0B"),
        (size(1_536), "2KiB"),
        (size(512 << 20), "512MiB"),
        (size(1 << 50), "1024TiB"),
        (duration(0.004), "4ms"),
        (duration(99.0), "99s"),
        (duration(600.0), "10m"),
        (duration(7_200.0), "2h"),
        (duration(1_000_000.0), "12d"),
        (age(None), "-"),
        (age(0.4), "0s"),
        (age(12.4), "12s"),
    ],
)
def test_figures_are_short(shown: str, expected: str) -> None:
    assert shown == expected
