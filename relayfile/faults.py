"""Named places at which a test makes the process die as by ``kill -9``: no cleanup, no answer, no flush.

``RELAYFILE_FAULT=name`` dies at the first pass of that point, ``name:3`` at the third. Unarmed, a point costs one
comparison. Refuses names that are not in ``POINTS``, so that a misspelt test does not pass by not dying.
"""

import os
import signal

from relayfile.errors import SettingError

POINTS = frozenset(
    {
        "ingest.handover.after_answer_before_taken",
        "ingest.spool.after_insert_before_fsync",
        "ingest.spool.after_fsync_before_answer",
        "ingest.stream.after_send_before_ack",
        "store.commit.before_commit",
        "store.commit.after_commit_before_ack",
        "store.replay.after_batch",
        "syncd.stage.after_write_before_journal",
        "syncd.stage.before_barrier",
        "syncd.stage.after_barrier_before_rename",
        "syncd.apply.after_rename_before_journal",
        "syncd.journal.after_commit",
        "syncd.conflict.after_keep_before_replace",
        "syncd.outbox.after_sent_before_send",
        "syncd.outbox.after_answer_before_journal",
    }
)


class _Armed:
    """Which point kills, and how many passes are left; ``name`` is None in every process that is not under test."""

    __slots__ = ("name", "passes_left")

    def __init__(self) -> None:
        self.name: str | None = None
        self.passes_left = 0


_armed = _Armed()


def arm(spec: str) -> None:
    """Arm ``name`` or ``name:N``; empty disarms. ``SettingError`` for an unknown name."""
    name, _, passes = spec.partition(":")
    if spec and (name not in POINTS or not (passes or "1").isdigit() or passes == "0"):
        raise SettingError(
            variable="RELAYFILE_FAULT",
            problem=f"is {spec!r}, which is no fault point",
            way_out=f"accepted: name or name:N with one of {', '.join(sorted(POINTS))}",
        )
    _armed.name = name or None
    _armed.passes_left = int(passes or "1")


def point(name: str) -> None:
    """Die here when armed for ``name``."""
    if _armed.name is not None:
        _pass(name)


def _pass(name: str) -> None:
    assert name in POINTS, name
    if name == _armed.name:
        _armed.passes_left -= 1
        if _armed.passes_left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
