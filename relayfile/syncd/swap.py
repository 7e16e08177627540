"""Putting a staged file in the place of one that may be saved at any moment: nothing but that staged file is unlinked.

Where the kernel can, two names are swapped at once, else one after the other. What came out is looked at after it came
out, never before; what cannot go back to its place is told of, for the caller to keep.
"""

import os
from typing import Final, NamedTuple

from relayfile.syncd import descriptors, kept
from relayfile.syncd.rows import DiskStat

SWAPPING: Final = ".swapping"
"""A staged file that may be the one from the mirror by now: `strays` looks at it after a kill."""
_UNIQUE_BYTES: Final = 8


class Swapped(NamedTuple):
    """What a swap came to."""

    placed: bool
    """The new file has the name."""
    out: str = ""
    """What came out of the mirror and has no place there now, by its name beside the staged file; empty: nothing."""
    as_seen: bool = False
    """``out`` is the file that was seen before; otherwise it may be a user's only copy."""


def swap(incoming: int, name: str, directory: int, target: str, seen: DiskStat) -> Swapped:
    """Put ``name`` in the place of ``target``, if that is what was ``seen``. ``OSError``: it was not done."""
    name, staged = _about_to_swap(incoming, name)
    try:
        if not descriptors.exchange(incoming, name, directory, target):
            return _one_after_the_other(incoming, name, staged, directory, target, seen)
    except OSError:
        _discard(incoming, name, staged)
        raise
    if kept.is_seen(incoming, name, seen):
        return Swapped(placed=True, out=name, as_seen=True)
    try:
        if not descriptors.exchange(incoming, name, directory, target):
            return Swapped(placed=True, out=name)
    except OSError:  # nothing has the name any more, most of all
        return Swapped(placed=False, out=name)
    return Swapped(placed=False, out="" if _discard(incoming, name, staged) else name)


def _one_after_the_other(
    incoming: int, name: str, staged: DiskStat, directory: int, target: str, seen: DiskStat
) -> Swapped:
    out = f"out-{name}"
    descriptors.move_if_absent(directory, target, incoming, out)
    try:
        if kept.is_seen(incoming, out, seen):
            descriptors.move_if_absent(incoming, name, directory, target)
            return Swapped(placed=True, out=out, as_seen=True)
    except FileExistsError:  # saved anew since
        _discard(incoming, name, staged)
        return Swapped(placed=False, out=out)
    except OSError:
        descriptors.move_if_absent(incoming, out, directory, target)
        raise
    _discard(incoming, name, staged)
    try:
        descriptors.move_if_absent(incoming, out, directory, target)
    except FileExistsError:
        return Swapped(placed=False, out=out)
    return Swapped(placed=False)


def _about_to_swap(incoming: int, name: str) -> tuple[str, DiskStat]:
    """A name that no later batch takes: what comes out of the mirror may have to stay under it."""
    staged = descriptors.stat_of(os.stat(name, dir_fd=incoming, follow_symlinks=False))
    swapping = f"{name}-{os.urandom(_UNIQUE_BYTES).hex()}{SWAPPING}"
    descriptors.move_if_absent(incoming, name, incoming, swapping)
    return swapping, staged


def _discard(incoming: int, name: str, staged: DiskStat) -> bool:
    """Unlink the staged file; False when something else has its name, which is left."""
    if not kept.is_seen(incoming, name, staged):
        return False
    os.unlink(name, dir_fd=incoming)
    return True
