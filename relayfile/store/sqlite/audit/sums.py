"""Whether counters are what they count: outcomes, dead letters, and the sums of each shard.

A workspace's rows and counters are compared in one snapshot, however many there are. How far deliveries prove counters:
those of a workspace that is younger than their retention exactly, of an older one at most.
"""

from collections import Counter
from collections.abc import Generator, Hashable, Iterator
from typing import TypeVar

import apsw

from relayfile.model import Outcome
from relayfile.store.engine import WorkspaceKey
from relayfile.store.integrity.finding import Check, Finding, Tally
from relayfile.store.sqlite.audit.step import ROWS_PER_TURN, Look
from relayfile.store.sqlite.periods import PERIOD_US, SLOTS, slot_of

_KEY = "shard_id = ? AND workspace_id = ?"
_COUNTS = f"SELECT provider, outcome, count FROM outcome_count WHERE {_KEY}"
_CREATED = f"SELECT created_us FROM workspace WHERE {_KEY}"
_DELIVERIES = [
    f"SELECT provider, outcome, delivery_id, change_key FROM delivery_{slot} WHERE {_KEY}" for slot in range(SLOTS)
]
_DECIDED_AGAIN = [
    f"SELECT 1 FROM delivery_{slot} WHERE {_KEY} AND provider = ? AND delivery_id = ? AND change_key = ?"
    for slot in range(SLOTS)
]
_DUPLICATES = [f"SELECT envelope_id FROM duplicate_seen_{slot} WHERE {_KEY}" for slot in range(SLOTS)]
_LETTERS = f"SELECT provider, state, reason, body_size_bytes FROM dead_letter WHERE {_KEY}"
_LETTER_TOTALS = f"SELECT provider, state, count, body_bytes FROM dead_letter_total WHERE {_KEY}"
_FAILURES = f"SELECT provider, reason, count FROM failure_count WHERE {_KEY}"
_SUMS = (
    ("outcome_total", "outcome_count", "shard_id, provider, outcome"),
    ("failure_total", "failure_count", "shard_id, provider, reason"),
)

Named = TypeVar("Named", bound=tuple[Hashable, ...])

WITHOUT_OBJECT = "n:"
"""Leads the change keys of whole requests: of one that was normalised again a row stays that counts nothing."""


def check_outcomes(cursor: apsw.Cursor, tally: Tally, key: WorkspaceKey, now_us: int) -> Look:
    """Counters of outcomes against the deliveries that are kept."""
    counts = Counter[tuple[str, int]]()
    for provider, outcome, count in cursor.execute(_COUNTS, key):
        counts[provider, outcome] = count
        if count < 0:
            subject = f"{provider} {_name(outcome)}"
            yield Finding(Check.OUTCOMES, *key, subject, "OUTCOME_MISMATCH", f"the counter is {count}")
    tally.change_count += counts.total()
    created_us: int = cursor.execute(_CREATED, key).get
    is_young = created_us // PERIOD_US >= now_us // PERIOD_US - 1
    kept, uncounted = yield from _deliveries(cursor, key, now_us)
    kept_duplicates = 0
    for statement in _DUPLICATES:
        for _ in cursor.execute(statement, key):
            kept_duplicates += 1
            if not kept_duplicates % ROWS_PER_TURN:
                yield None
    for provider, outcome in sorted(kept.keys() | counts.keys()):
        if outcome == Outcome.DUPLICATE:
            continue
        found, counted = kept[provider, outcome], counts[provider, outcome]
        at_least = found - uncounted[provider, outcome]
        if counted < at_least or (is_young and counted > found):
            subject = f"{provider} {_name(outcome)}"
            message = f"the counter is {counted}, and {found} deliveries that ended so are kept"
            yield Finding(Check.OUTCOMES, *key, subject, "OUTCOME_MISMATCH", message)
    duplicates = sum(count for (_, outcome), count in counts.items() if outcome == Outcome.DUPLICATE)
    if duplicates < kept_duplicates or (is_young and duplicates > kept_duplicates):
        message = f"the counters add up to {duplicates}, and {kept_duplicates} duplicates are remembered"
        yield Finding(Check.OUTCOMES, *key, "duplicate", "OUTCOME_MISMATCH", message)
    return None


def _deliveries(
    cursor: apsw.Cursor, key: WorkspaceKey, now_us: int
) -> Generator[None, None, tuple[Counter[tuple[str, int]], Counter[tuple[str, int]]]]:
    """(deliveries by provider and outcome, those of them that may not be counted)."""
    kept, uncounted = Counter[tuple[str, int]](), Counter[tuple[str, int]]()
    execute = cursor.connection.execute
    newest = slot_of(now_us)
    seen = 0
    newer: list[int] = []
    for slot in ((newest - back) % SLOTS for back in range(SLOTS)):
        for provider, outcome, delivery_id, change_key in cursor.execute(_DELIVERIES[slot], key):
            seen += 1
            if not seen % ROWS_PER_TURN:
                yield None
            if outcome == Outcome.DEAD_LETTERED and any(
                execute(_DECIDED_AGAIN[later], (*key, provider, delivery_id, change_key)).fetchone() for later in newer
            ):
                continue  # planned again in a later period: the newer row counts
            kept[provider, outcome] += 1
            if outcome == Outcome.IGNORED and change_key.startswith(WITHOUT_OBJECT):
                uncounted[provider, outcome] += 1
        newer.append(slot)
    return kept, uncounted


def check_letters(cursor: apsw.Cursor, tally: Tally, key: WorkspaceKey) -> Look:
    """Sums over dead letters, by state and by reason."""
    states, sizes, reasons = Counter[tuple[str, int]](), Counter[tuple[str, int]](), Counter[tuple[str, str]]()
    for number, (provider, state, reason, size_bytes) in enumerate(cursor.execute(_LETTERS, key), 1):
        states[provider, state] += 1
        sizes[provider, state] += size_bytes
        reasons[provider, reason] += 1
        if not number % ROWS_PER_TURN:
            yield None
    kept_states, kept_sizes = Counter[tuple[str, int]](), Counter[tuple[str, int]]()
    for provider, state, count, body_bytes in cursor.execute(_LETTER_TOTALS, key):
        kept_states[provider, state], kept_sizes[provider, state] = count, body_bytes
    for name, kept, counted in (("letters", kept_states, states), ("bytes", kept_sizes, sizes)):
        for provider, state in _differences(kept, counted):
            message = f"the sum of {name} is {kept[provider, state]}, and there are {counted[provider, state]}"
            yield Finding(
                Check.OUTCOMES, *key, f"{provider} state {state} {name}", "DEAD_LETTER_TOTAL_MISMATCH", message
            )
    kept_reasons = Counter({(provider, reason): count for provider, reason, count in cursor.execute(_FAILURES, key)})
    for provider, reason in _differences(kept_reasons, reasons):
        there = f"the counter is {kept_reasons[provider, reason]}, and there are {reasons[provider, reason]}"
        yield Finding(Check.OUTCOMES, *key, f"{provider} {reason}", "FAILURE_COUNT_MISMATCH", there)
    return None


def check_shard_totals(cursor: apsw.Cursor, tally: Tally) -> Look:
    """What each shard sums up over its workspaces."""
    for totals, counters, columns in _SUMS:
        sums = Counter[tuple[int, str, int | str]]()
        rows: Iterator[tuple[int, str, int | str, int]] = cursor.execute(f"SELECT {columns}, count FROM {counters}")
        for number, (shard_id, provider, named, count) in enumerate(rows, 1):
            sums[shard_id, provider, named] += count
            if not number % ROWS_PER_TURN:
                yield None
        kept = Counter[tuple[int, str, int | str]]()
        rows = cursor.execute(f"SELECT {columns}, count FROM {totals}")
        for shard_id, provider, named, count in rows:
            kept[shard_id, provider, named] = count
        for each in _differences(kept, sums):
            shard_id, provider, named = each
            shown = _name(named) if isinstance(named, int) else named
            message = f"{totals} says {kept[each]}, and the workspaces add up to {sums[each]}"
            yield Finding(Check.OUTCOMES, shard_id, "", f"{provider} {shown}", "SHARD_TOTAL_MISMATCH", message)
    return None


def _differences(kept: Counter[Named], counted: Counter[Named]) -> list[Named]:
    return sorted((each for each in kept.keys() | counted.keys() if kept[each] != counted[each]), key=repr)


def _name(outcome: int) -> str:
    return Outcome(outcome).name.lower() if outcome in Outcome.__members__.values() else str(outcome)
