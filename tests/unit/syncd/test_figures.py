"""What Prometheus sees of mirrors."""

import pathlib

import pytest
from prometheus_client import CollectorRegistry

from relayfile.clock import SystemClock
from relayfile.errors import MirrorRefused
from relayfile.syncd import figures
from relayfile.syncd.figures import Figures
from relayfile.syncd.progress import Via
from relayfile.telemetry import SyncdInstruments
from tests.fakes.registry import add, serving
from tests.fakes.store import FakeStore


async def test_staleness_halts_and_problems_are_shown(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "LABELLED_MAX", 1)
    store = FakeStore()
    store.fill({"/a": "1"})
    prometheus = CollectorRegistry()
    async with store.served() as address, serving(address, tmp_path) as registry:
        shown = Figures(registry, SyncdInstruments.declare(prometheus), SystemClock())

        def value(name: str, **labels: str) -> float | None:
            return prometheus.get_sample_value(f"relayfile_syncd_{name}", labels)

        mirror = add(registry, tmp_path, follow=False)
        (tmp_path / "other").mkdir()
        add(registry, tmp_path / "other", follow=False)
        await mirror.pull(full=False, via=Via.ANY)
        shown.refresh()
        first, second = sorted(each.record.mirror_id for each in registry)
        assert value("staleness_seconds", mirror=first) is not None
        assert value("staleness_seconds", mirror=second) is None
        assert (value("mirrors"), value("mirrors_halted"), value("problems")) == (2.0, 0.0, 0.0)
        stalest = value("stalest_seconds")
        assert stalest is not None
        assert 0 <= stalest < 60

        (tmp_path / "mirror").rename(tmp_path / "aside")
        with pytest.raises(MirrorRefused):
            await mirror.audit(repair=False, look=False, verify_content=False)
        shown.refresh()
        shown.refresh()
        assert value("mirrors_halted") == 1.0
        assert value("halts_total", reason="ROOT_MISSING") == 1.0
        await registry.forget(registry.get(first), force=True)
        shown.refresh()
        assert value("staleness_seconds", mirror=first) is None
        assert value("staleness_seconds", mirror=second) is not None
