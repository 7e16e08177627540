"""Comparing what the journal knows with what the store says, at one revision, and finding out whether the disk agrees.

Digest equal at the same revision, every file settled, and a look at each file's stat: then a mirror is exact.
Refuses to repair.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from relayfile.errors import CursorExpired
from relayfile.syncd import names
from relayfile.syncd.descriptors import Directories, split
from relayfile.syncd.digest import TreeSum
from relayfile.syncd.local import check_held, take_local
from relayfile.syncd.local_changes import LocalChanges
from relayfile.syncd.open_mirror import OpenMirror
from relayfile.syncd.place import UNREAD, observe
from relayfile.syncd.progress import Progress
from relayfile.syncd.reconcile import Mode, Step, reconcile
from relayfile.syncd.rows import Cursor, EntryState, FileRow, FileState
from relayfile.syncd.scan import Scanned, scan

_SWEEP_ROWS: Final = 2_000


class Verdict(IntEnum):
    """The numbers are those of ``relayfile.v1.MirrorVerdict``."""

    UNKNOWN = 0
    EXACT = 1
    EXACT_EXCEPT_LISTED = 2
    DIFFERENT = 3


@dataclass(frozen=True, slots=True)
class RootAudit:
    """One remote path, on both sides."""

    path: str
    remote: TreeSum
    local: TreeSum
    partial: bool = False
    """Summed over what the mirror's token may read only."""


@dataclass(frozen=True, slots=True)
class AuditResult:
    """A comparison at one revision."""

    at: Cursor
    verdict: Verdict
    roots: tuple[RootAudit, ...]
    listed_count: int
    differing_count: int
    """Files that are not yet on the other side, and that no list names."""
    unsent_count: int
    """Of them, edits that the store does not have."""

    @property
    def equal(self) -> bool:
        """The digests agree; says nothing about the disk."""
        return all(root.remote == root.local for root in self.roots)


@dataclass(frozen=True, slots=True)
class Swept:
    """What a look at every file found."""

    changed_count: int
    verified_count: int
    missing_count: int


def compare(
    mirror: OpenMirror, remote: Mapping[str, TreeSum], at: Cursor, partial: Collection[str] = ()
) -> AuditResult:
    """The journal, which stands at ``at``, beside the store's sums at the same revision.

    ``partial``: the paths that are summed over what the mirror's token may read only.
    """
    sums = mirror.journal.sums
    roots = tuple(
        RootAudit(path, remote.get(path, TreeSum()), sums[path], path in partial) for path in mirror.remote_paths
    )
    unsettled = mirror.journal.unsettled().files
    outbox = mirror.journal.outbox.totals()
    under_way = outbox.pending_count - outbox.refused_count
    differing, _ = mirror.journal.differing(0)
    ahead = unsettled.get(FileState.PENDING, 0) + unsettled.get(FileState.OUTGOING, 0)
    listed = sum(unsettled.values()) - ahead + outbox.refused_count + mirror.journal.conflicts.count()
    if differing or any(root.remote != root.local for root in roots):
        verdict = Verdict.DIFFERENT
    else:
        verdict = Verdict.EXACT_EXCEPT_LISTED if listed or mirror.journal.problems.count() else Verdict.EXACT
    return AuditResult(at, verdict, roots, listed, differing, under_way)


def rejudged(mirror: OpenMirror, result: AuditResult) -> AuditResult:
    """The same comparison with what is pending and listed by now; the journal must still stand where it was made."""
    remote = {root.path: root.remote for root in result.roots}
    return compare(mirror, remote, result.at, [root.path for root in result.roots if root.partial])


async def ask(mirror: OpenMirror, progress: Progress) -> tuple[dict[str, TreeSum], Cursor, frozenset[str]] | None:
    """The store's sums of all remote paths, if it could tell them at one revision; None when they moved meanwhile.

    The last are the paths of which the token may read a part only.
    """
    remote: dict[str, TreeSum] = {}
    partial: set[str] = set()
    at: Cursor | None = None
    for path in mirror.remote_paths:
        held = await mirror.feed.held(path)
        progress.wire_bytes += held.wire_bytes
        if at is not None and held.at != at:
            return None
        at = held.at
        remote[path] = held.total
        if held.partial:
            partial.add(path)
    assert at is not None, "a mirror has a remote path"
    if mirror.journal.cursor.history_id not in ("", at.history_id):
        raise CursorExpired(history_id=at.history_id, oldest=at.revision)
    return remote, at, frozenset(partial)


async def sweep(mirror: OpenMirror, *, verify_content: bool = False) -> Swept:
    """Compare the disk with the journal: every file's stat, or (``verify_content``) its bytes, and what is new.

    What differs is looked at as any local change is. `bring` has to be run afterwards. ``MassDelete`` when too much is
    gone.
    """
    scanned = Scanned()
    async for changes in scan(mirror, verify=verify_content, scanned=scanned):
        await take_local(mirror, changes, verify=verify_content)
    await take_local(mirror, LocalChanges(tuple(told_of(mirror))))
    check_held(mirror)
    return Swept(scanned.changed_count, scanned.verified_count, scanned.missing_count)


def told_of(mirror: OpenMirror) -> list[str]:
    """Disk paths that no other look finds: of edits that the store refused, and of files that are only a problem."""
    refused = mirror.journal.outbox.in_state(EntryState.REFUSED, "", _SWEEP_ROWS)
    return [*(each.disk_path for each in refused), *mirror.journal.problems.on_disk_only(_SWEEP_ROWS, pushable=True)]


async def retry(mirror: OpenMirror) -> int:
    """Make files with a problem pending again where trying may help; how many.

    A file that is still in the way is not fetched again only to be refused again.
    """
    after = ""
    count = 0
    while rows := mirror.journal.rows(after, _SWEEP_ROWS, state=FileState.PROBLEM):
        after = rows[-1].path
        rows = [row for row in rows if names.refusal(row.path) is None]
        blocked = await mirror.writer.run(
            _blocked, mirror.root.fd, rows, mirror.rights.mode, mirror.settings.content_bytes_max
        )
        again = [row.path for row in rows if row.path not in blocked]
        mirror.journal.try_again(again)
        count += len(again)
    return count


def _blocked(root_fd: int, rows: Sequence[FileRow], mode: Mode, bytes_max: int) -> set[str]:
    blocked: set[str] = set()
    with Directories(root_fd) as directories:
        for row in rows:
            parent, name = split(row.disk_path)
            try:
                local, _ = observe(directories.get(parent), name, row.disk_stat, row.disk_hash, bytes_max)
            except FileNotFoundError:
                continue
            except OSError:
                blocked.add(row.path)
                continue
            step = reconcile(row.disk_hash, local, row.remote_hash, mode).step
            if step is Step.LIST or (step is Step.PUSH and local.content_hash == UNREAD):
                blocked.add(row.path)
    return blocked
