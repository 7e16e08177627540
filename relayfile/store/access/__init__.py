"""What a caller may read and write of a workspace: its scopes and the rules of files, decided here and nowhere else.

Readers filter through a `Sight`, one for each snapshot; mutations ask `WriteAccess`. The grammar of scopes and rules is
in `relayfile.auth`; which RPC needs which scope in its table of requirements.
"""

from relayfile.store.access.partial import PartialTotals
from relayfile.store.access.reading import Cover, ReadAccess, Sight, Tree
from relayfile.store.access.writing import WriteAccess

__all__ = ["Cover", "PartialTotals", "ReadAccess", "Sight", "Tree", "WriteAccess"]
