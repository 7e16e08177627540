"""What a node remembers of its busiest workspaces: a minute of them, and so many at most."""

from prometheus_client import CollectorRegistry

from relayfile.clock import ManualClock
from relayfile.store import activity
from relayfile.store.activity import NodeActivity
from relayfile.store.engine import PlannedEntry, WorkspaceKey
from relayfile.store.plan.result import Plan
from relayfile.telemetry import StoreInstruments, WritebackInstruments


def begun() -> tuple[ManualClock, NodeActivity]:
    clock, registry = ManualClock(), CollectorRegistry()
    return clock, NodeActivity(clock, StoreInstruments.declare(registry), WritebackInstruments.declare(registry))


def commit(figures: NodeActivity, workspace: str, changes: int) -> None:
    entry = PlannedEntry(WorkspaceKey(0, workspace), Plan(workspace, None), 0)
    figures.committed(entry, changes, changes * 10)


def test_the_busiest_come_first_and_a_minute_later_they_are_forgotten() -> None:
    clock, figures = begun()
    clock.advance(120)
    commit(figures, "calm", 6)
    clock.advance(30)
    commit(figures, "busy", 60)
    commit(figures, "busy", 60)
    assert [(each.key.workspace_id, each.changes_per_s, each.bytes_per_s) for each in figures.busiest(5)] == [
        ("busy", 2.0, 20.0),
        ("calm", 0.1, 1.0),
    ]
    assert [each.key.workspace_id for each in figures.busiest(1)] == ["busy"]
    clock.advance(31)
    assert [each.key.workspace_id for each in figures.busiest(5)] == ["busy"]
    clock.advance(60)
    assert not figures.busiest(5)


def test_a_slice_holds_so_many_workspaces_and_goes_on_counting_them() -> None:
    clock, figures = begun()
    clock.advance(120)
    for number in range(activity.SLICE_WORKSPACES_MAX + 10):
        commit(figures, f"w-{number}", 1)
    commit(figures, "w-0", 59)
    busiest = figures.busiest(10_000)
    assert len(busiest) == activity.SLICE_WORKSPACES_MAX
    assert (busiest[0].key.workspace_id, busiest[0].changes_per_s) == ("w-0", 1.0)


def test_what_ends_is_counted_from_nought() -> None:
    """Prometheus sees no increase in a series that begins with what was counted: the first dead letters."""
    registry = CollectorRegistry()
    NodeActivity(ManualClock(), StoreInstruments.declare(registry), WritebackInstruments.declare(registry))
    assert registry.get_sample_value("relayfile_store_outcomes_total", {"outcome": "dead_lettered"}) == 0
    ends = {"kind": "write", "end": "dead_lettered"}
    assert registry.get_sample_value("relayfile_writeback_ends_total", ends) == 0
    assert registry.get_sample_value("relayfile_writeback_ends_total", {"kind": "write", "end": "pending"}) is None
