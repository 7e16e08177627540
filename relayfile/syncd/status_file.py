"""`.relayfile/status.json`: how fresh a mirror is, for agents that read files and make no calls."""

import json
from datetime import UTC, datetime
from typing import Final

from relayfile.syncd.open_mirror import OpenMirror
from relayfile.syncd.root import STATUS
from relayfile.syncd.rows import FileState
from relayfile.syncd.shown import MirrorRecord, Seen

PROBLEMS_SHOWN_MAX: Final = 100


def write(mirror: OpenMirror, record: MirrorRecord, seen: Seen) -> None:
    """Replace the file, whole. A directory that takes no file is told by the problems of its files, not here."""
    try:
        mirror.root.write_own(STATUS, json.dumps(content(mirror, record, seen), indent=1).encode() + b"\n")
    except OSError:
        return


def content(mirror: OpenMirror, record: MirrorRecord, seen: Seen) -> dict[str, object]:
    """What the file says."""
    journal = mirror.journal
    unsettled = journal.unsettled().files
    tracked = sum(total.file_count for total in journal.sums.values())
    problems = journal.problems.listed(PROBLEMS_SHOWN_MAX)
    return {
        "mirror_id": record.mirror_id,
        "workspace_id": record.workspace_id,
        "remote_paths": list(record.remote_paths),
        "state": seen.state.name.lower(),
        "read_only": record.read_only or mirror.rights.refused,
        "revision": journal.cursor.revision,
        "history_id": journal.cursor.history_id,
        "remote_revision": seen.remote_revision,
        "verdict": seen.audited.result.verdict.name.lower() if seen.audited is not None else "unknown",
        "fresh_time": _time(seen.fresh_time_us),
        "written_time": _time(mirror.clock.now_us()),
        "files": {
            "tracked": tracked,
            "materialised": tracked - sum(unsettled.values()),
            **{
                state.name.lower(): unsettled.get(state, 0)
                for state in FileState
                if state is not FileState.MATERIALISED
            },
        },
        "token_expire_time": _time(mirror.token.expire_time_us() if mirror.token is not None else 0),
        "trash_count": journal.trash.totals()[0],
        "unsent_edit_count": journal.outbox.totals().pending_count,
        "conflict_count": journal.conflicts.count(),
        "problem_count": journal.problems.total(),
        "problems": [
            {"path": each.path, "reason": each.reason, "message": each.message, "since": _time(each.create_time_us)}
            for each in problems
        ],
        "halt": None if seen.halt is None else {"reason": seen.halt.reason, "message": seen.halt.message},
        "error": None if seen.error is None else {"reason": seen.error.reason, "message": str(seen.error)},
    }


def _time(us: int) -> str | None:
    return datetime.fromtimestamp(us / 1e6, UTC).isoformat() if us else None
