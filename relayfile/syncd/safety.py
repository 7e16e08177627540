"""When a plan deletes too much to be believed (I4). Pure.

A delete is authorised by an event, or by a listing that is proved complete; this is the rail behind it. Renames are not
deletes: who counts leaves them out.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

from relayfile.paths import ancestors

DIRECTORY_FILES_MIN: Final = 100
"""A directory that had more files than this is not emptied in one go."""
FEW_DELETES: Final = 10
"""So many deletes are never a mass: half of a tree of four files is an ordinary day."""


def files_below(deleted: Iterable[str]) -> Counter[str]:
    """For every directory above them, how many of the files a plan deletes."""
    counts: Counter[str] = Counter()
    for path in deleted:
        counts.update(ancestors(path))
    return counts


def crowded(deleted_below: Mapping[str, int]) -> list[str]:
    """Directories of which a plan deletes more than ``DIRECTORY_FILES_MIN`` files; whether any remain must be asked."""
    return [directory for directory, count in deleted_below.items() if count > DIRECTORY_FILES_MIN]


def directories_to_ask(deleted: Iterable[str]) -> list[str]:
    """As ``crowded``, of the files that a plan deletes."""
    return crowded(files_below(deleted))


def refusal(delete_count: int, tracked_count: int, delete_count_max: int, emptied: Iterable[str]) -> str | None:
    """The rule that a plan breaks: ``OVER_COUNT``, ``OVER_HALF`` or ``WHOLE_DIRECTORY``; None when it may go on.

    ``tracked_count`` is what the mirror knew before the plan, ``emptied`` those of ``directories_to_ask`` of which
    nothing would remain.
    """
    if delete_count > delete_count_max:
        return "OVER_COUNT"
    if delete_count > FEW_DELETES and 2 * delete_count > tracked_count:
        return "OVER_HALF"
    if any(True for _ in emptied):
        return "WHOLE_DIRECTORY"
    return None
