"""What the store asks of an engine about its own integrity."""

from collections.abc import AsyncGenerator
from typing import Protocol, TypeAlias

from relayfile.store.integrity.finding import AuditEnd, AuditOrder, Finding, Tally

Audited: TypeAlias = Finding | Tally | AuditEnd
"""A confirmed finding; how far it is; the end, which comes last and once."""


class Auditor(Protocol):
    """Recomputes from the rows of one node what is kept beside them, while others write."""

    def run(self, order: AuditOrder) -> AsyncGenerator[Audited, None]:
        """Look. `WorkspaceNotFound` when the order names a workspace that this node does not have."""
        ...
