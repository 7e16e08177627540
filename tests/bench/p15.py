"""P15: P2's load with a tenth of what is published traced, spans going to a collector in another process, beside none.

A trace is complete when its root and every parent have arrived, and what it published can be followed to its commit:
by spans of its own, or by links from batches that it shares with others.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

from tests.bench.harness import STORE_AND_INGEST, Bench, create_workspaces, run_load, spread, until_ended
from tests.bench.load_publish import PublishLoad
from tests.bench.result import Figure, Result
from tests.support.otlp_receiver import receiving
from tests.support.span_tree import ReceivedSpan

WORKSPACES = 64
RATIO = "0.1"
PUBLISHED = "receive envelopes"
FOLLOWED = ("accept spool", "send shards", "commit workspaces")


async def run(bench: Bench) -> Result:
    envelopes = 100_000 if bench.quick else 400_000
    rates: dict[bool, list[float]] = {False: [], True: []}
    cpu_us: dict[bool, list[float]] = {False: [], True: []}
    complete = found = missing = 0
    for number in range(1 if bench.quick else 3):
        for traced in (False, True) if number % 2 == 0 else (True, False):
            folder = bench.folder / f"{number}-{'on' if traced else 'off'}"
            async with receiving(folder / "collector") as collector:
                settings = {"RELAYFILE_OTLP_ENDPOINT": collector.address, "RELAYFILE_TRACE_SAMPLE_RATIO": RATIO}
                rate, left = await _publish(bench, folder, envelopes, settings if traced else {})
                spans = collector.spans()  # whoever ended has sent what it had
            rates[traced].append(rate)
            cpu_us[traced].append((bench.cpu("ingest") + bench.cpu("store")) * 1e6 / envelopes)
            missing += left
            if traced:
                traces = of_traces(spans)
                whole = whole_traces(traces)
                complete, found = complete + len(whole), found + len(traces)
    off, on = median(rates[False]), median(rates[True])
    return Result(
        "P15",
        [
            Figure("traced ÷ untraced", on / off, "x", 0.85),
            Figure("complete traces", complete / found if found else 0.0, "share", 0.99),
            Figure("not applied", missing, "envelopes", 0, "at most"),
            Figure("traces", found, "traces"),
            Figure("untraced", off, "envelopes/s"),
            Figure("traced", on, "envelopes/s"),
            Figure("processor time, traced ÷ untraced", median(cpu_us[True]) / median(cpu_us[False]), "x"),
        ],
        bench.quick,
        {**bench.detail, "envelopes": envelopes, "sampled": RATIO, "rates": {str(k): v for k, v in rates.items()}},
    )


async def _publish(bench: Bench, folder: Path, envelopes: int, settings: Mapping[str, str]) -> tuple[float, int]:
    """(envelopes applied in a second, envelopes that were not)."""
    async with bench.system(only=STORE_AND_INGEST, overrides=settings, data=folder / "data") as (_, client):
        names = await create_workspaces(client, "bench-", WORKSPACES)
        load = PublishLoad(
            address=client.ingest_address,
            token=client.token,
            workspace_prefix="bench-",
            workspaces=WORKSPACES,
            envelopes=envelopes,
        )
        sent = await run_load(load)
        ended_s, missing = await until_ended(client, spread(envelopes, names), timeout_s=60)
    return (envelopes - missing) / (ended_s - sent["started_s"]), missing


def of_traces(spans: Sequence[ReceivedSpan]) -> dict[str, list[ReceivedSpan]]:
    """By trace, those in which something was published; without any span those that are known by links only."""
    traces: dict[str, list[ReceivedSpan]] = defaultdict(list)
    for span in spans:
        traces[span.trace_id].append(span)
    linked = {trace for span in spans for trace, _ in span.links}
    named = {span.trace_id for span in spans if span.name in (PUBLISHED, *FOLLOWED)}
    return {trace: traces[trace] for trace in linked | named}


def whole_traces(traces: Mapping[str, Sequence[ReceivedSpan]]) -> set[str]:
    """Those that arrived complete."""
    reached: dict[str, set[str]] = defaultdict(set)
    for own in traces.values():
        for span in own:
            for trace in {span.trace_id, *(trace for trace, _ in span.links)}:
                reached[trace].add(span.name)
    whole = set()
    for trace, own in traces.items():
        known = {span.span_id for span in own}
        roots = [span for span in own if not span.parent_id]
        parents = all(span.parent_id in known for span in own if span.parent_id)
        if len(roots) == 1 and parents and reached[trace] >= {PUBLISHED, *FOLLOWED}:
            whole.add(trace)
    return whole
