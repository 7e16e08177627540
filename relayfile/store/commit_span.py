"""The span of a transaction: below what the first event came of, linked to everything else that was sampled (D17).

Contexts of changes that are folded into others, or end without an event, are in no event: who queued them told.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager

from opentelemetry.trace import SpanKind

from relayfile.store.engine import PlannedEntry
from relayfile.store.plan.entry import Fold
from relayfile.store.queues import Waiting
from relayfile.telemetry import SpanHandle, Tracing
from relayfile.telemetry.conventions import messaging
from relayfile.telemetry.traceparent import is_sampled


def commit_span(
    tracing: Tracing,
    entries: Sequence[PlannedEntry],
    answered: Iterable[Iterable[tuple[Waiting, object]]],
    change_count: int,
) -> AbstractContextManager[SpanHandle]:
    """Around the transaction that writes `entries`."""
    attributes = messaging("commit", "process", "workspaces", change_count)
    return tracing.batch("commit workspaces", _parents(entries, answered), SpanKind.CONSUMER, attributes)


def traces_of(folds: Iterable[Fold]) -> Sequence[str]:
    """The contexts of all members that are sampled, each once."""
    return tuple(
        {member.traceparent: None for fold in folds for member in fold.members if is_sampled(member.traceparent)}
    )


def _parents(entries: Sequence[PlannedEntry], answered: Iterable[Iterable[tuple[Waiting, object]]]) -> Iterator[str]:
    for entry in entries:
        for event in entry.plan.events:
            yield event.traceparent
    for each in answered:
        for waiting, _ in each:
            yield from waiting.traces
