"""When P15 calls a trace complete."""

from dataclasses import replace

from tests.bench.p15 import of_traces, whole_traces
from tests.support.span_tree import ReceivedSpan

ROOT = ReceivedSpan(
    service="relayfile-ingest",
    name="receive envelopes",
    kind="consumer",
    trace_id="a",
    span_id="1",
    parent_id="",
    start_ns=1,
    end_ns=2,
    failed=False,
    attributes={},
    links=[],
)
OWN = [
    ROOT,
    *(
        replace(ROOT, name=name, span_id=str(number), parent_id="1")
        for number, name in enumerate(("accept spool", "send shards", "commit workspaces"), 2)
    ),
]
OTHER = replace(ROOT, trace_id="b")


def whole(*spans: ReceivedSpan) -> set[str]:
    return whole_traces(of_traces(spans))


def test_a_trace_is_whole_with_its_root_and_all_that_followed() -> None:
    assert whole(*OWN) == {"a"}
    for missing in range(len(OWN)):
        assert whole(*(span for number, span in enumerate(OWN) if number != missing)) == set()


def test_what_is_shared_counts_by_its_links() -> None:
    assert whole(*OWN, OTHER) == {"a"}
    shared = [replace(span, links=[("a", "1"), ("b", "1")]) for span in OWN[1:]]
    assert whole(ROOT, *shared, OTHER) == {"a", "b"}
    assert "b" in of_traces([ROOT, *shared])  # its root never came
    assert whole(ROOT, *shared) == {"a"}
