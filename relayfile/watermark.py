"""Which of two changes of one object is newer, as far as ingest and store must agree.

Owns the choice of a change's clock and the pairwise rule by which a fold elides content. Refuses to know an object's
history: what is stale against the rows is decided by the store's planner, which alone has them. Pure.
"""

from typing import Final, NamedTuple

from relayfile.model import MemberKind

PROVIDER_AHEAD_MAX_US: Final = 5 * 60 * 1_000_000
"""A provider time this far ahead of the receive time is a broken clock, and counts as absent beyond it."""


class Stamp(NamedTuple):
    """What of a change decides its age."""

    kind: MemberKind
    provider_us: int | None
    """By the provider's clock, as `provider_time` lets it count."""
    received_us: int


def provider_time(occurred_us: int | None, received_us: int) -> int | None:
    """The provider time that counts, in microseconds; None: the change is ordered by its receive time."""
    if occurred_us is None or occurred_us > received_us + PROVIDER_AHEAD_MAX_US:
        return None
    return occurred_us


def stamp(kind: MemberKind, occurred_us: int | None, received_us: int) -> Stamp:
    """The stamp of a change."""
    return Stamp(kind, provider_time(occurred_us, received_us), received_us)


def wins_over(winner: Stamp, loser: Stamp, *, winner_is_later: bool) -> bool:
    """Whether `winner` makes the content of `loser` superfluous: once both were applied, it cannot show.

    Only a full change (upsert or delete) wins, and only on the clock that both use. `winner_is_later` says that it
    arrived after the other at the same process; on equal provider times a delete wins in any order. The rule is
    transitive, so a winner may itself have been elided. A patch keeps its content, which is small: only with it can be
    told whether it is JSON, and one that is not must not move its object.
    """
    if loser.kind is MemberKind.PATCH:
        return False
    if winner.kind is not MemberKind.UPSERT and winner.kind is not MemberKind.DELETE:
        return False
    if winner.provider_us is None or loser.provider_us is None:
        if winner.provider_us is not loser.provider_us:
            return False
        if winner.received_us == loser.received_us:
            return winner_is_later
        return winner.received_us > loser.received_us
    if winner.provider_us == loser.provider_us:
        if (winner.kind is MemberKind.DELETE) is not (loser.kind is MemberKind.DELETE):
            return winner.kind is MemberKind.DELETE
        return winner_is_later
    return winner.provider_us > loser.provider_us
