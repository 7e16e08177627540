"""How mirrors look on a terminal, in a file, and when they wait for somebody."""

import io
import json
import sys
from collections.abc import AsyncIterator

import pytest

from relayfile.cli.mirror_shown import conflict_text, described, plain_table, watch
from relayfile.v1 import mirror_pb2

FINE = mirror_pb2.Mirror(
    mirror_id="m1",
    workspace_id="acme",
    directory="/home/ada/acme",
    remote_paths=["/"],
    state=mirror_pb2.MIRROR_STATE_FOLLOWING,
    revision=7,
    remote_revision=7,
    verdict=mirror_pb2.MIRROR_VERDICT_EXACT,
    file_counts=mirror_pb2.MirrorFileCounts(materialised_count=3),
)
HALTED = mirror_pb2.Mirror(
    mirror_id="m2",
    workspace_id="acme",
    directory="/home/ada/part",
    remote_paths=["/github", "/notes"],
    state=mirror_pb2.MIRROR_STATE_HALTED,
    problem_count=2,
    trash_count=4,
    trash_bytes=5_000,
    halt=mirror_pb2.MirrorHalt(
        reason="MASS_DELETE",
        message="OVER_HALF: 9 of 10 files would be deleted",
        delete_plan=mirror_pb2.DeletePlan(plan_id="deletes-1", delete_count=9),
    ),
)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


async def messages() -> AsyncIterator[mirror_pb2.WatchMirrorsResponse]:
    yield mirror_pb2.WatchMirrorsResponse(mirrors=[FINE, HALTED])
    yield mirror_pb2.WatchMirrorsResponse()
    yield mirror_pb2.WatchMirrorsResponse(deleted_mirror_ids=["m1"])


def test_a_mirror_in_words_says_what_helps() -> None:
    text = described(HALTED)
    assert "acme /github /notes" in text
    assert "`relayfile mirror problems /home/ada/part` says what is wrong with 2" in text
    assert "4 files in the trash (5,000 bytes)" in text
    assert "halted: MASS_DELETE: OVER_HALF: 9 of 10 files would be deleted" in text
    assert "`relayfile mirror approve /home/ada/part` shows what would be deleted" in text
    assert "problems" not in described(FINE).splitlines()[-1].partition("0 problems")[2]


def test_a_mirror_in_words_names_conflicts_and_edits_under_way() -> None:
    outbox = mirror_pb2.MirrorOutbox(pending_count=2, pending_bytes=3_000)
    mirror = mirror_pb2.Mirror(
        directory="/home/ada/acme", conflict_count=1, outbox=outbox, revision=6, remote_revision=5
    )
    text = described(mirror)
    assert "revision 6 of 6" in text
    assert "2 edits (3,000 bytes) that the store does not have yet" in text
    assert "`relayfile mirror conflicts /home/ada/acme` lists 1 to decide about" in text


def test_a_conflict_in_words_says_where_either_version_is() -> None:
    conflict = mirror_pb2.MirrorConflict(
        conflict_id="c1",
        kind=mirror_pb2.CONFLICT_KIND_BOTH_MODIFIED,
        remote_path="/notes/today.md",
        local_path="notes/today.md",
        kept_path=".relayfile/conflicts/notes/today.md@4",
        base_revision=2,
        remote_revision=4,
        remote_sha256=b"r" * 32,
        remote_size_bytes=15,
        local_sha256=b"l" * 32,
        local_size_bytes=1_200,
    )
    assert conflict_text(conflict).splitlines() == [
        "/notes/today.md  changed here and there, 1970-01-01 00:00:00Z",
        "  mine:   1,200 bytes, .relayfile/conflicts/notes/today.md@4",
        "  theirs: 15 bytes, notes/today.md, revision 4, before 2",
        "  id:     c1",
    ]
    conflict.kind, conflict.kept_path, conflict.remote_sha256 = mirror_pb2.CONFLICT_KIND_DELETED_REMOTELY, "", b""
    gone = conflict_text(conflict).splitlines()
    assert gone[0].startswith("/notes/today.md  changed here, deleted there, ")
    assert gone[1:3] == ["  mine:   1,200 bytes, notes/today.md", "  theirs: deleted, revision 4, before 2"]
    conflict.kind, conflict.local_sha256, conflict.remote_sha256 = mirror_pb2.CONFLICT_KIND_DELETED_LOCALLY, b"", b"r"
    assert conflict_text(conflict).splitlines()[1] == "  mine:   deleted"


def test_a_table_has_a_line_for_each() -> None:
    head, first, second = plain_table([FINE, HALTED]).splitlines()
    assert head.split() == [
        "MIRROR",
        "WORKSPACE",
        "STATE",
        "REVISION",
        "FILES",
        "PENDING",
        "PROBLEMS",
        "CONFLICTS",
        "VERDICT",
    ]
    assert first.split() == ["/home/ada/acme", "acme", "following", "7/7", "3", "0", "0", "0", "exact"]
    assert second.split()[2] == "mass_delete"


async def test_a_terminal_shows_a_live_table(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "160")
    await watch(messages(), in_json=False)
    shown = terminal.getvalue()
    assert "/home/ada/acme" in shown
    assert "mass_delete" in shown
    assert "/home/ada/acme" not in shown[shown.rindex("/home/ada/part") :]


async def test_a_file_gets_a_line_for_each_change(capsys: pytest.CaptureFixture[str]) -> None:
    await watch(messages(), in_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines] == ["/home/ada/acme", "/home/ada/part", "m1"]
    await watch(messages(), in_json=True)
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [each.get("mirror_id", each.get("deleted_mirror_id")) for each in told] == ["m1", "m2", "m1"]
