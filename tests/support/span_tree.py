"""Received spans as trees: one trace from its root, with what is linked to it, as text for people."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedSpan:
    """A span as a collector got it."""

    service: str
    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    start_ns: int
    end_ns: int
    failed: bool
    attributes: Mapping[str, str | int | float | bool]
    links: Sequence[tuple[str, str]]
    """(trace, span) of each."""

    def to_json(self) -> dict[str, object]:
        return asdict(self)

    @classmethod
    def from_json(cls, told: dict[str, Any]) -> Self:
        return cls(**{**told, "links": [(trace, span) for trace, span in told["links"]]})


def linking_to(spans: Sequence[ReceivedSpan], trace_id: str) -> list[ReceivedSpan]:
    """Spans of other traces that have a link into this one."""
    return [span for span in spans if span.trace_id != trace_id and any(trace == trace_id for trace, _ in span.links)]


def printed(spans: Sequence[ReceivedSpan], trace_id: str) -> str:
    """The trace as a tree, in order of time; below it what is linked to it from other traces."""
    own = sorted((span for span in spans if span.trace_id == trace_id), key=lambda span: span.start_ns)
    if not own:
        return f"trace {trace_id}: nothing has arrived\n"
    known = {span.span_id for span in own}
    start_ns = own[0].start_ns
    lines = [f"trace {trace_id}"]
    roots = [span for span in own if span.parent_id not in known]
    for place, root in enumerate(roots):
        lines += _branch(own, root, "", start_ns, is_last=place == len(roots) - 1)
    for span in sorted(linking_to(spans, trace_id), key=lambda span: span.start_ns):
        lines.append(f"linked from trace {span.trace_id}")
        lines += _branch([], span, "", start_ns, is_last=True)
    return "\n".join(lines) + "\n"


def _branch(
    own: Sequence[ReceivedSpan], span: ReceivedSpan, indent: str, start_ns: int, *, is_last: bool
) -> Iterator[str]:
    head = f"{indent}{'└─ ' if is_last else '├─ '}{span.name}"
    at_ms, took_ms = (span.start_ns - start_ns) / 1e6, (span.end_ns - span.start_ns) / 1e6
    yield f"{head:<72}{span.service.removeprefix('relayfile-'):<8}{span.kind:<10}at {at_ms:8.1f} ms {took_ms:8.1f} ms"
    below = [each for each in own if each.parent_id == span.span_id]
    for place, each in enumerate(below):
        inner = indent + ("   " if is_last else "│  ")
        yield from _branch(own, each, inner, start_ns, is_last=place == len(below) - 1)
