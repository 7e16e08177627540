"""How operations are paced, retried and guarded. Set once per process, from the settings."""

from typing import NamedTuple

SECOND_US = 1_000_000


class WritebackLimits(NamedTuple):
    """See the fields."""

    provider_concurrency_max: int = 8
    """Claimed operations of one provider in one workspace."""
    suppression_us: int = 120 * SECOND_US
    """So long after its end an operation is known by its echo."""
    attempts_max: int = 10
    """Tries; the one that fails then is the last."""
    backoff_min_us: int = 1 * SECOND_US
    """After the first failure; doubled with each."""
    backoff_max_us: int = 300 * SECOND_US
    spacing_us: int = 1 * SECOND_US
    """Between claims of one object."""
    delete_delay_us: int = 10 * SECOND_US
    """How long a delete can be taken back by another edit."""
    hold_us: int = 30 * SECOND_US
    """How long a provider's change waits for the end of the object's edits."""
    quarantine_deletes: int = 50
    """More of one workspace inside of `quarantine_us` are held back until they are approved."""
    quarantine_us: int = 600 * SECOND_US
