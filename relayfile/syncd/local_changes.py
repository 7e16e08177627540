"""What happened in a mirror's directory, as values: where to look, not what to believe. Pure.

Every value is a hint. Its user looks at the disk and at the journal before it acts, so that a change of our own, a
change told twice, or one that is undone meanwhile costs one look and comes to nothing.
"""

from dataclasses import dataclass
from typing import Final

CHANGES_MAX: Final = 5_000
"""Paths in one value; more are told in several."""


@dataclass(frozen=True, slots=True)
class LocalChanges:
    """Places to look at, in disk paths: relative to the mirror's directory, `/` between segments, valid UTF-8.

    None lies below `.relayfile/` or is kept out by a rule. Bounded by who makes them (``CHANGES_MAX`` paths in all).
    """

    disk_paths: tuple[str, ...] = ()
    """Names that may have been made, changed, removed or become something else; sorted, each once. Directories are not
    told, but where a file was."""
    moves: tuple[tuple[str, str], ...] = ()
    """(from, to) of regular files that were renamed inside the mirror, in order. Neither name is in ``disk_paths``
    unless more happened to it. A renamed directory is told as the moves of the files below it."""
    gap: bool = False
    """Anything may have happened anywhere: the whole tree has to be scanned. The rest may be empty."""
    directories: tuple[str, ...] = ()
    """As ``gap``, for everything below these directories only; none lies below another."""
    refused: tuple[str, ...] = ()
    """Names that no workspace can hold, as the kernel gave them (undecodable bytes as lone surrogates): they are listed
    as problems while they are there. Neither valid UTF-8 nor of any use to a journal."""

    def __bool__(self) -> bool:
        return bool(self.disk_paths or self.moves or self.gap or self.directories or self.refused)
