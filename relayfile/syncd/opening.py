"""Opening a mirror: its directory and its journal, and what a kill left in between made to agree.

Owns what is to be let go when any step fails. Refuses to know who uses the mirror.
"""

from collections.abc import Callable
from contextlib import ExitStack

from relayfile.syncd.journal import Journal
from relayfile.syncd.open_mirror import OpenMirror
from relayfile.syncd.root import Marker, Root
from relayfile.syncd.shown import MirrorRecord
from relayfile.syncd.strays import take_in


async def open_mirror(
    record: MirrorRecord, open_journal: Callable[[Root], Journal], open_with: Callable[[Root, Journal], OpenMirror]
) -> OpenMirror:
    """``RootLost`` when the directory is not the mirror's; ``MirrorRefused`` when somebody else has it open."""
    root = Root.open(record.directory, Marker(record.mirror_id, record.workspace_id))
    with ExitStack() as opening:  # what is left open would keep the lock, and the next attempt out
        opening.callback(root.close)
        journal = open_journal(root)
        opening.callback(journal.close)
        opened = open_with(root, journal)
        await take_in(opened)
        opening.pop_all()
    return opened
