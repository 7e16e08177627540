"""Limits that the planner holds every change to."""

from typing import NamedTuple

from relayfile.store.plan.writeback.limits import WritebackLimits


class PlanLimits(NamedTuple):
    """Set once per process, from the settings."""

    content_bytes_max: int = 16 * 1024 * 1024
    """Of one file; beyond, the change is dead-lettered as `TOO_LARGE`."""
    clock_skew_max_us: int = 2_000_000
    """Receive times of different ingest processes are told apart only beyond this."""
    dead_letters_max: int = 100_000
    """Of one workspace, without those that were acknowledged; where there are as many, no more failures are taken."""
    dead_letter_bytes_max: int = 1 << 30
    """Their bodies and contents; as above."""
    files_max: int = 0
    """Of a workspace that has no quota of its own; 0: any number."""
    total_bytes_max: int = 0
    """As above."""
    writeback: WritebackLimits = WritebackLimits()
