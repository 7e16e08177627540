"""What a mirror holds that the store does not have: a mirror is not forgotten over it unless somebody insists."""

from dataclasses import dataclass

from relayfile.syncd.open_mirror import OpenMirror


@dataclass(frozen=True, slots=True)
class Unsent:
    """Counts; false when there is nothing."""

    edits: int = 0
    """Local edits that the store has not acknowledged."""
    conflicts: int = 0
    """Files of which both versions are kept."""

    def __bool__(self) -> bool:
        return bool(self.edits or self.conflicts)


def unsent(mirror: OpenMirror) -> Unsent:
    """What an opened mirror holds."""
    return Unsent(mirror.journal.outbox.totals().pending_count, mirror.journal.conflicts.count())
