"""How much a workspace holds while an entry is planned, and how much it may hold (its quota)."""

from relayfile.errors import QuotaExceeded
from relayfile.store.plan.limits import PlanLimits
from relayfile.store.plan.rows import DirectoryRow, WorkspaceRow


class Room:
    """Live totals of one workspace."""

    __slots__ = ("_bytes_max", "_files_max", "bytes", "files")

    def __init__(self, workspace: WorkspaceRow | None, root: DirectoryRow | None, limits: PlanLimits) -> None:
        self.files = 0 if root is None else root.file_count
        self.bytes = 0 if root is None else root.total_bytes
        self._files_max = (0 if workspace is None else workspace.files_max) or limits.files_max
        self._bytes_max = (0 if workspace is None else workspace.total_bytes_max) or limits.total_bytes_max

    def lacks(self, files: int, size_bytes: int) -> QuotaExceeded | None:
        """Why it may not grow by `files` and `size_bytes`; None: it may, and may shrink however full it is."""
        if files > 0 and self._files_max and self.files + files > self._files_max:
            return QuotaExceeded(what="files", limit=self._files_max)
        if size_bytes > 0 and self._bytes_max and self.bytes + size_bytes > self._bytes_max:
            return QuotaExceeded(what="bytes", limit=self._bytes_max)
        return None
