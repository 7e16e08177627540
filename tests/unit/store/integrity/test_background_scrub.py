"""The scrub in the background: when it begins, what it tells, that a failure is not the end."""

import asyncio
from collections.abc import AsyncGenerator, Callable

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from relayfile.clock import ManualClock
from relayfile.errors import StorageFailed, Unavailable
from relayfile.store.integrity.background import FINDINGS_MAX, FIRST_AFTER_S, BackgroundScrub
from relayfile.store.integrity.finding import AuditEnd, AuditOrder, Check, Finding, Tally
from relayfile.store.integrity.seam import Audited
from relayfile.telemetry import ScrubInstruments

DAMAGE = Finding(Check.CONTENT, 3, "acme", "/a.txt", "CONTENT_MISMATCH", "its bytes are others than its hash says")


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


def made(auditor: Auditor, interval_s: float = 3_600.0) -> tuple[BackgroundScrub, CollectorRegistry]:
    registry = CollectorRegistry()
    return BackgroundScrub(auditor, ManualClock(), interval_s, 65_536, ScrubInstruments.declare(registry)), registry


async def test_what_it_finds_is_in_the_log_the_metrics_and_the_state() -> None:
    tally = Tally(content_count=7, content_bytes=700)
    auditor = Auditor([Tally(), DAMAGE, tally, AuditEnd(tally, 1)], [Tally(), AuditEnd(Tally(content_bytes=5))])
    scrub, registry = made(auditor)
    seen: list[bool] = []
    auditor.on_item = lambda: seen.append(scrub.state.is_running)
    with capture_logs() as logs:
        await scrub.once()
    assert all(seen)
    assert not scrub.state.is_running
    assert auditor.orders == [AuditOrder("", (Check.CONTENT,), False, FINDINGS_MAX, 65_536)]
    [line] = [each for each in logs if each["log_level"] == "error"]
    assert (line["workspace"], line["subject"], line["reason"]) == ("acme", "/a.txt", "CONTENT_MISMATCH")
    assert (scrub.state.content_count, scrub.state.content_bytes, scrub.state.last_finding_count) == (7, 700, 1)
    assert registry.get_sample_value("relayfile_scrub_findings") == 1
    assert registry.get_sample_value("relayfile_scrub_bytes_total") == 700
    await scrub.once()
    assert registry.get_sample_value("relayfile_scrub_findings") == 0, "the last one found nothing any more"
    assert registry.get_sample_value("relayfile_scrub_bytes_total") == 705


async def test_it_goes_on_after_a_failure_and_ends_with_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
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


async def test_it_is_never_begun_where_it_is_off() -> None:
    auditor = Auditor()
    scrub, _ = made(auditor, 0.0)
    await scrub.run()
    assert not auditor.orders
