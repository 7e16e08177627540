"""The scrub in the background: when it begins, what it tells, that a failure is not the end."""

import asyncio
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from relayfile.clock import ManualClock
from relayfile.errors import StorageFailed, Unavailable
from relayfile.store.integrity.background import FINDINGS_TOLD_MAX, FIRST_AFTER_S, KEPT_EVERY_S, BackgroundScrub
from relayfile.store.integrity.finding import AuditEnd, AuditOrder, Check, Finding, Place, Tally
from relayfile.store.integrity.place import FILE_NAME, PlaceFile
from relayfile.store.integrity.seam import Audited
from relayfile.telemetry import ScrubInstruments

DAMAGE = Finding(Check.CONTENT, 3, "acme", "/a.txt", "CONTENT_MISMATCH", "its bytes are others than its hash says")


ORDER = AuditOrder("", (Check.CONTENT,), False, sys.maxsize, 65_536)


class Auditor:
    """Tells what it was given, one item at a time."""

    def __init__(self, *runs: list[Audited] | Exception) -> None:
        self.runs = list(runs)
        self.orders: list[AuditOrder] = []
        self.on_item: Callable[[], None] = lambda: None

    async def run(self, order: AuditOrder) -> AsyncGenerator[Audited, None]:
        self.orders.append(order)
        given = self.runs.pop(0)
        if isinstance(given, Exception):
            raise given
        for item in given:
            yield item
            self.on_item()


class Limited(Auditor):
    """Ends as the real one does at as many findings as are ordered."""

    async def run(self, order: AuditOrder) -> AsyncGenerator[Audited, None]:
        count = 0
        async with aclosing(super().run(order)) as items:
            async for item in items:
                yield item
                count += isinstance(item, Finding)
                if count >= order.findings_max:
                    yield AuditEnd(Tally(content_count=count), count, is_truncated=True)
                    return


@dataclass(slots=True)
class Maker:
    """Of scrubs of one node, one process after the other."""

    directory: Path
    clock: ManualClock = field(default_factory=ManualClock)

    def __call__(self, auditor: Auditor, interval_s: float = 3_600.0) -> tuple[BackgroundScrub, CollectorRegistry]:
        registry = CollectorRegistry()
        instruments = ScrubInstruments.declare(registry)
        place = PlaceFile(self.directory)
        return BackgroundScrub(auditor, self.clock, interval_s, 65_536, instruments, place), registry


@pytest.fixture
def made(tmp_path: Path) -> Maker:
    return Maker(tmp_path)


async def test_what_it_finds_is_in_the_log_the_metrics_and_the_state(made: Maker) -> None:
    tally = Tally(content_count=7, content_bytes=700)
    auditor = Auditor([Tally(), DAMAGE, tally, AuditEnd(tally, 1)], [Tally(), AuditEnd(Tally(content_bytes=5))])
    scrub, registry = made(auditor)
    seen: list[bool] = []
    auditor.on_item = lambda: seen.append(scrub.state.is_running)
    with capture_logs() as logs:
        await scrub.once()
    assert all(seen)
    assert not scrub.state.is_running
    assert auditor.orders == [ORDER]
    [line] = [each for each in logs if each["log_level"] == "error"]
    assert (line["workspace"], line["subject"], line["reason"]) == ("acme", "/a.txt", "CONTENT_MISMATCH")
    assert (scrub.state.content_count, scrub.state.content_bytes, scrub.state.last_finding_count) == (7, 700, 1)
    assert registry.get_sample_value("relayfile_scrub_findings") == 1
    assert registry.get_sample_value("relayfile_scrub_bytes_total") == 700
    await scrub.once()
    assert registry.get_sample_value("relayfile_scrub_findings") == 0, "the last one found nothing any more"
    assert registry.get_sample_value("relayfile_scrub_bytes_total") == 705


async def test_it_goes_on_after_a_failure_and_ends_with_the_disk(made: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    rests: list[float] = []

    async def sleep(seconds: float) -> None:
        rests.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    auditor = Auditor(Unavailable(what="file"), [AuditEnd(Tally())], StorageFailed(what="fsync"))
    scrub, registry = made(auditor)
    with pytest.raises(StorageFailed):
        await scrub.run()
    assert rests == [FIRST_AFTER_S, 3_600.0, 3_600.0]
    assert registry.get_sample_value("relayfile_scrub_failures_total") == 1
    assert scrub.state.ended_us is not None


async def test_it_is_never_begun_where_it_is_off(made: Maker) -> None:
    auditor = Auditor()
    scrub, _ = made(auditor, 0.0)
    await scrub.run()
    assert not auditor.orders


async def test_a_restart_goes_on_where_the_scrub_was(made: Maker, tmp_path: Path) -> None:
    here, further = Place(3, "acme", "/a.txt"), Place(3, "acme", "/b.txt")
    tallies = [
        Tally(content_count=1, content_bytes=10, place=Place(1, "zeta", "/x")),
        Tally(content_count=4, content_bytes=40, place=here),
        Tally(content_count=5, content_bytes=50, place=further),
    ]
    cut = Auditor([tallies[0], DAMAGE, *tallies[1:]])
    scrub, _ = made(cut)

    def on_item() -> None:
        made.clock.advance(KEPT_EVERY_S / 2)
        if scrub.state.content_count == 5:
            raise asyncio.CancelledError  # the process ends

    cut.on_item = on_item
    with pytest.raises(asyncio.CancelledError), capture_logs():
        await scrub.once()
    assert not scrub.state.is_running

    left = Tally(content_count=3, content_bytes=30)
    again = Auditor([left, AuditEnd(left)], [AuditEnd(Tally())])
    scrub, registry = made(again)
    await scrub.once()
    assert again.orders == [replace(ORDER, after=here)], "of what came after it the place was not written down yet"
    state = scrub.state
    assert (state.content_count, state.content_bytes, state.last_finding_count) == (7, 70, 1)
    assert registry.get_sample_value("relayfile_scrub_bytes_total") == 30
    assert registry.get_sample_value("relayfile_scrub_findings") == 1
    await scrub.once()
    assert again.orders[1] == ORDER, "the next one is of everything"
    assert not list(tmp_path.iterdir())


async def test_many_findings_do_not_end_it_and_a_restart_goes_on_after_them(made: Maker) -> None:
    place = Place(3, "acme", "/b.txt")
    there = Tally(content_count=FINDINGS_TOLD_MAX, content_bytes=10, place=place)
    auditor = Auditor([*[DAMAGE] * FINDINGS_TOLD_MAX, there, DAMAGE, there])
    scrub, registry = made(auditor)

    def on_item() -> None:
        made.clock.advance(KEPT_EVERY_S)
        if scrub.state.finding_count > FINDINGS_TOLD_MAX:
            raise asyncio.CancelledError  # the process ends before the place after the last one is written down

    auditor.on_item = on_item
    with pytest.raises(asyncio.CancelledError), capture_logs() as logs:
        await scrub.once()
    assert [line["event"] for line in logs if line["log_level"] == "error"].count("scrub finding") == FINDINGS_TOLD_MAX

    again = Auditor([DAMAGE, DAMAGE, AuditEnd(Tally(content_count=2), 2)])
    scrub, registry = made(again)
    with capture_logs() as logs:
        await scrub.once()
    assert again.orders == [replace(ORDER, after=place)]
    [line] = [line for line in logs if line["log_level"] == "error"]
    assert line["told"] == FINDINGS_TOLD_MAX
    assert scrub.state.last_finding_count == FINDINGS_TOLD_MAX + 2
    assert registry.get_sample_value("relayfile_scrub_findings") == FINDINGS_TOLD_MAX + 2


async def test_contents_after_more_damage_than_is_told_are_looked_at(made: Maker, tmp_path: Path) -> None:
    end = Tally(content_count=2 * FINDINGS_TOLD_MAX)
    scrub, _ = made(Limited([*[DAMAGE] * (2 * FINDINGS_TOLD_MAX), end, AuditEnd(end)]))
    with capture_logs():
        await scrub.once()
    assert scrub.state.last_finding_count == scrub.state.content_count == 2 * FINDINGS_TOLD_MAX
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("damaged", [b"", b"{", b'{"shard_id": "?"}'])
async def test_a_place_that_cannot_be_read_is_none(made: Maker, tmp_path: Path, damaged: bytes) -> None:
    (tmp_path / FILE_NAME).write_bytes(damaged)
    auditor = Auditor([AuditEnd(Tally())])
    scrub, _ = made(auditor)
    await scrub.once()
    assert auditor.orders == [ORDER]
