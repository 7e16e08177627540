"""The door between the fronts (HTTP, gRPC) and what takes envelopes: what a front may count on when it answers.

Owns the one method by which envelopes become durable, in the spool or in their shard, and the refusal of a part of
them. Refuses to validate or complete them: that is the front's work.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol, TypeAlias

from relayfile.errors import Overloaded, RelayfileError
from relayfile.ingest.shares import Account
from relayfile.v1 import types_pb2

Fate: TypeAlias = Sequence[types_pb2.Outcome.ValueType] | RelayfileError
"""The durable outcome of each change of an envelope (one for an envelope without changes), or why it has none."""


class PastShare(Overloaded):
    """The {what} is full; try again after {retry_after_s:g} s."""

    # Raised by `Intake.accept`: nothing was taken, and what does not belong to these accounts may be offered again at
    # once. As the fate of one envelope it says nothing of the others.

    def __init__(self, seconds: Mapping[Account, float]) -> None:
        """`seconds` after which each account may try again; at least one."""
        (workspace_id, provider), retry_after_s = next(iter(seconds.items()))
        super().__init__(
            what=f"share of provider {provider!r} of workspace {workspace_id!r}", retry_after_s=retry_after_s
        )
        self.seconds = seconds

    def apart(self) -> "dict[Account, PastShare]":
        """The refusal of each account alone."""
        return {account: PastShare({account: seconds}) for account, seconds in self.seconds.items()}


class Intake(Protocol):
    """Takes complete envelopes and returns when they survive a power cut."""

    async def accept(self, envelopes: Sequence[types_pb2.Envelope]) -> Sequence[Fate]:
        """Make ``envelopes`` durable, of however many workspaces.

        With a spool: all of them or, by raising, none (but those of a call that was out of time may become durable all
        the same); returns an empty sequence, because outcomes follow later.
        Without (`through`): returns what became of each one, in order. One that has no outcome in time is not accepted,
        though it may still be committed; its sender's retry is a `duplicate` then.

        Each one is validated and complete: ``envelope_id``, ``received_at``, ``correlation_id``, ``delivery_id`` and
        ``traceparent`` set, paths normalised, several changes of one object numbered (``repetition``), contents inline
        however large (no ``content_follows_bytes``). The messages belong to the intake from then on: do not change
        them.

        Answers or raises within `RELAYFILE_ACCEPT_DEADLINE`. ``PastShare``: some workspaces' providers are past their
        shares (429). ``Unavailable``: the spool is full or its disk slow, or the store is away (503). ``Paused``:
        without a spool nothing can be held (503). ``Draining``: the process is stopping (503). ``StorageFailed``: the
        disk failed, nothing was accepted and the process ends. A call that is cancelled may or may not have been
        accepted.
        """
        ...


class PromptIntake(Intake, Protocol):
    """An intake that takes without a task of the caller's: what most webhooks go by."""

    def offer(self, envelopes: Sequence[types_pb2.Envelope], done: Callable[[Exception | None], None]) -> None:
        """As `accept`; ``done`` is told once, with None or with what `accept` would have raised, and must not raise.

        Raises, and then tells nothing, where nothing was accepted and that is known at once.
        """
        ...


def raise_refusal(fates: Iterable[Fate]) -> None:
    """Raise the first refusal of a call that is answered as a whole."""
    for fate in fates:
        if isinstance(fate, RelayfileError):
            raise fate
