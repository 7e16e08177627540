"""All metrics of all processes: what docs/metrics.md lists and dashboards, alerts and autoscalers may name."""

from typing import Final, NamedTuple

from relayfile.telemetry.metrics import (
    IngestInstruments,
    Instruments,
    RpcInstruments,
    ScrubInstruments,
    StoreInstruments,
    SyncdInstruments,
    TraceInstruments,
    WritebackInstruments,
)

GROUPS: Final[tuple[type[Instruments], ...]] = (
    RpcInstruments,
    TraceInstruments,
    IngestInstruments,
    StoreInstruments,
    WritebackInstruments,
    ScrubInstruments,
    SyncdInstruments,
)
_COUNTED: Final = {"calls": "calls", "open": "calls", "outcomes": "changes", "fenced": "entries", "ends": "operations"}
_MEASURED: Final = ("timestamp_seconds", "seconds", "bytes")


class Metric(NamedTuple):
    """One metric as a scraper sees it."""

    name: str
    kind: str
    """`counter`, `gauge` or `histogram`."""
    unit: str
    labels: tuple[str, ...]
    meaning: str

    @property
    def series(self) -> tuple[str, ...]:
        """The names of its samples."""
        if self.kind == "histogram":
            return tuple(f"{self.name}_{suffix}" for suffix in ("bucket", "sum", "count"))
        return (self.name,)


def catalogue() -> list[Metric]:
    """Every metric, by process and in the order of its declaration."""
    return [
        Metric(name, kind, unit_of(name), labels, meaning)
        for group in GROUPS
        for name, kind, labels, meaning in group.described()
    ]


def unit_of(name: str) -> str:
    """`seconds`, `bytes`, or what is counted: the first word of a name that is no qualifier."""
    words = name.removeprefix("relayfile_").removesuffix("_total").split("_")[1:]
    if words[-2:] == ["timestamp", "seconds"]:
        return "Unix seconds"
    if words[-1] in _MEASURED:
        return words[-1]
    counted = words[-1] if words[0] in ("queue", "commit", "spool", "writer") else words[0]
    return _COUNTED.get(counted, counted)
