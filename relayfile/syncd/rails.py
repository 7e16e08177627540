"""What an error means that ended a mirror's work: a safety rail that broke, or the disk."""

import apsw

from relayfile.errors import MirrorRefused, RelayfileError, StorageFailed
from relayfile.syncd.bring import MassDelete
from relayfile.syncd.root import RootLost


def disk_error_of(raised: BaseException) -> OSError | None:
    """The error of the operating system that was met, if one was; in a group, the first."""
    if isinstance(raised, BaseExceptionGroup):
        return next((error for each in raised.exceptions if (error := disk_error_of(each)) is not None), None)
    return raised if isinstance(raised, OSError) else None


def is_full(error: RelayfileError) -> bool:
    """Whether a journal failed that will work again as it is: there was no room, or somebody else held it."""
    return isinstance(error, StorageFailed) and isinstance(error.__cause__, apsw.FullError | apsw.BusyError)


def wants_room(error: RelayfileError) -> bool:
    """Whether a first pull may get further with more room: its disk took nothing more, or the journal's is full."""
    return isinstance(error, MirrorRefused) or isinstance(error.__cause__, apsw.FullError)


def rail_of(raised: BaseException) -> RootLost | MassDelete | None:
    """The safety rail that broke, if one did; in a group, the first."""
    if isinstance(raised, BaseExceptionGroup):
        return next((rail for each in raised.exceptions if (rail := rail_of(each)) is not None), None)
    return raised if isinstance(raised, RootLost | MassDelete) else None
