import pytest
from prometheus_client import CollectorRegistry, generate_latest

from relayfile.telemetry import (
    IngestInstruments,
    RpcInstruments,
    StoreInstruments,
    SyncdInstruments,
    WritebackInstruments,
    new_registry,
)
from relayfile.telemetry.metrics import Instruments


@pytest.mark.parametrize(
    "kind", [RpcInstruments, IngestInstruments, StoreInstruments, SyncdInstruments, WritebackInstruments]
)
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
