"""What becomes of one member while its entry is planned; the answer is known only when the whole entry is."""

from typing import Final, Protocol

from relayfile.model import Failure, Origin, Outcome
from relayfile.store.plan.entry import Member
from relayfile.store.plan.rows import DeliveryKey


class Cause(Protocol):
    """What changed a file, as the file's row and its event tell it."""

    @property
    def origin(self) -> Origin:
        """Who."""
        ...

    @property
    def provider(self) -> str:
        """Empty when it was none."""
        ...

    @property
    def correlation_id(self) -> str:
        """Of the delivery or the call."""
        ...

    @property
    def traceparent(self) -> str:
        """Of the same."""
        ...


class Verdict:
    """One member's outcome in the making."""

    origin: Final = Origin.PROVIDER

    __slots__ = ("counted", "earlier_envelope", "failure", "key", "member", "outcome", "repeats", "supersedes")

    def __init__(self, key: DeliveryKey, member: Member) -> None:
        self.key = key
        self.member = member
        self.outcome: Outcome | None = None
        """None while what follows decides between `applied`, `coalesced` and `unchanged`."""
        self.failure: Failure | None = None
        self.counted = True
        self.repeats: Verdict | None = None
        """The same change of the same envelope, earlier in the entry: it has the same outcome, and counts for both."""
        self.supersedes: Verdict | None = None
        """The same change of another envelope, earlier in the entry, which failed: of the two, it is the duplicate."""
        self.earlier_envelope: str | None = None
        """The envelope of the stored dead letter that this member was planned again for."""

    @property
    def provider(self) -> str:
        """As `Cause`."""
        return self.key.provider

    @property
    def correlation_id(self) -> str:
        """As `Cause`."""
        return self.member.correlation_id

    @property
    def traceparent(self) -> str:
        """As `Cause`."""
        return self.member.traceparent
