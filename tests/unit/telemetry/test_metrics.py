import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import choose_encoder

from relayfile.telemetry import RpcInstruments, StoreInstruments, new_registry
from relayfile.telemetry.catalogue import GROUPS, catalogue
from relayfile.telemetry.exemplars import observe
from relayfile.telemetry.metrics import LABELS, Instruments
from relayfile.telemetry.traceparent import format_context, unsampled


@pytest.mark.parametrize("kind", GROUPS)
def test_the_catalogue_is_exposed_under_its_names(kind: type[Instruments]) -> None:
    registry = CollectorRegistry()
    kind.declare(registry)
    names = {metric.name for metric in registry.collect()}
    assert all(name.startswith(f"relayfile_{kind.prefix}_") for name in names)
    with pytest.raises(ValueError, match="Duplicated"):
        kind.declare(registry)


def test_counting_shows() -> None:
    registry = new_registry()
    StoreInstruments.declare(registry).commits_total.inc(3)
    RpcInstruments.declare(registry).calls_total.labels("FileService/GetFile", "OK").inc()
    text = generate_latest(registry).decode()
    assert "relayfile_store_commits_total 3.0" in text
    assert 'relayfile_rpc_calls_total{code="OK",method="FileService/GetFile"} 1.0' in text
    assert "process_resident_memory_bytes" in text


def test_every_group_of_instruments_is_in_the_catalogue() -> None:
    # By name: a class with slots is made twice.
    assert {each.__name__ for each in GROUPS} == {each.__name__ for each in Instruments.__subclasses__()}
    names = [each.name for each in catalogue()]
    assert len(names) == len(set(names))


def test_the_catalogue_says_what_is_exposed() -> None:
    registry = CollectorRegistry()
    for group in GROUPS:
        group.declare(registry)
    exposed = {
        family.name + ("_total" if family.type == "counter" else ""): family.type for family in registry.collect()
    }
    assert {each.name: each.kind for each in catalogue()} == exposed
    for each in catalogue():
        assert each.meaning.endswith("."), each.name
        assert each.unit, each.name
        if each.kind == "histogram" and each.unit != "changes":
            assert each.name.endswith("seconds")


def test_labels_are_few_and_none_names_a_workspace() -> None:
    used = {label for each in catalogue() for label in each.labels}
    assert used == set(LABELS)
    assert not used & {"workspace", "workspace_id", "path", "caller", "subject", "tenant", "shard"}


def test_every_queue_that_is_bounded_tells_its_bound() -> None:
    names = {each.name for each in catalogue()}
    for queue, bound in (
        ("ingest_spool_bytes", "ingest_spool_limit_bytes"),
        ("ingest_objects_held", "ingest_objects_limit"),
        ("ingest_bodies_bytes", "ingest_bodies_limit_bytes"),
        ("ingest_in_flight_bytes", "ingest_in_flight_limit_bytes"),
        ("store_queue_bytes", "store_queue_limit_bytes"),
        ("writeback_workers_busy", "writeback_workers_limit"),
        ("trace_queue_spans", "trace_queue_limit_spans"),
    ):
        assert {f"relayfile_{queue}", f"relayfile_{bound}"} <= names


def test_a_slow_bucket_names_a_trace() -> None:
    registry = CollectorRegistry()
    seconds = StoreInstruments.declare(registry).commit_seconds
    observe(seconds, 0.2, unsampled())
    observe(seconds, 0.3, "")
    openmetrics, _ = choose_encoder("application/openmetrics-text; version=1.0.0")
    assert b"trace_id" not in openmetrics(registry)
    observe(seconds, 0.7, format_context(0xABC, 0xDEF, sampled=True))
    shown = openmetrics(registry).decode()
    [bucket] = [line for line in shown.splitlines() if "trace_id" in line]
    assert bucket.startswith('relayfile_store_commit_seconds_bucket{le="1.0"} 3.0 # {')
    assert f'trace_id="{0xABC:032x}"' in bucket
    assert f'span_id="{0xDEF:016x}"' in bucket
    assert bucket.split(" # ")[1].split()[1] == "0.7"
    assert b"trace_id" not in generate_latest(registry)
