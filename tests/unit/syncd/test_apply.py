import hashlib
import pathlib

import pytest

from relayfile.syncd import descriptors
from relayfile.syncd.apply import Application, Applied, Wanted
from relayfile.syncd.root import Root
from relayfile.syncd.rows import DiskStat


def sha(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


def wanted(path: str, content: bytes | None, base: bytes | None = None, written: DiskStat | None = None) -> Wanted:
    remote = None if content is None else sha(content)
    return Wanted(path, path[1:], None if base is None else sha(base), written, remote, 7, content or b"")


def write(root: Root, *batch: Wanted) -> Applied:
    return Application(root, [f"t{index}" for index in range(len(batch))], 1).write(batch)


def remove(root: Root, *batch: Wanted) -> Applied:
    return Application(root, [f"t{index}" for index in range(len(batch))], 1).remove(batch)


def reasons(applied: Applied) -> dict[str, str]:
    return {problem.path: problem.reason for problem in applied.problems}


def trashed(mirror: pathlib.Path) -> list[bytes]:
    return [path.read_bytes() for path in (mirror / ".relayfile" / "trash").iterdir()]


def written_once(root: Root, path: str, content: bytes) -> DiskStat:
    (settled,) = write(root, wanted(path, content)).settled
    assert settled.disk_stat is not None
    return settled.disk_stat


@pytest.mark.parametrize("can_swap", [True, False])
def test_i5_what_is_replaced_or_removed_goes_to_the_trash(
    root: Root, mirror: pathlib.Path, can_swap: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not can_swap:
        monkeypatch.setattr(descriptors, "exchange", lambda *_: False)
    stat = written_once(root, "/d/a", b"one")
    (settled,) = write(root, wanted("/d/a", b"two", b"one", stat)).settled
    assert (mirror / "d" / "a").read_bytes() == b"two"
    assert trashed(mirror) == [b"one"]
    applied = Application(root, ["u0"], 1).remove([wanted("/d/a", None, b"two", settled.disk_stat)])
    assert (applied.deleted_count, [each.name for each in applied.trashed]) == (1, ["a~" + applied.trashed[0].name[2:]])
    assert not (mirror / "d").exists()
    assert sorted(trashed(mirror)) == [b"one", b"two"]


def test_i3_an_edit_between_the_look_and_the_swap_is_put_back(
    root: Root, mirror: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stat = written_once(root, "/a", b"one")
    swap = descriptors.exchange
    edits = iter([b"edited at the last moment"])

    def exchange(first: int, name: str, second: int, other: str) -> bool:
        for edit in edits:
            (mirror / "a").write_bytes(edit)
        return swap(first, name, second, other)

    monkeypatch.setattr(descriptors, "exchange", exchange)
    applied = write(root, wanted("/a", b"two", b"one", stat))
    assert reasons(applied) == {"/a": "LOCAL_EDIT_KEPT"}
    assert (mirror / "a").read_bytes() == b"edited at the last moment"
    assert trashed(mirror) == []


def test_i3_a_touched_file_with_the_same_bytes_is_still_ours(root: Root, mirror: pathlib.Path) -> None:
    stat = written_once(root, "/a", b"one")
    (mirror / "a").touch()
    assert reasons(write(root, wanted("/a", b"two", b"one", stat))) == {}
    assert (mirror / "a").read_bytes() == b"two"


def test_i2_a_directory_swapped_for_a_link_is_not_followed(
    root: Root, mirror: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    stat = written_once(root, "/d/a", b"one")
    outside = tmp_path / "outside"
    (mirror / "d").rename(outside)
    (mirror / "d").symlink_to(outside)
    applied = write(root, wanted("/d/a", b"two", b"one", stat), wanted("/d/new", b"new"), wanted("/ok", b"ok"))
    assert reasons(applied) == {"/d/a": "FILE_IN_THE_WAY", "/d/new": "FILE_IN_THE_WAY"}
    gone = remove(root, wanted("/d/a", None, b"one", stat))
    assert gone.deleted_count == 0
    assert [path.name for path in outside.iterdir()] == ["a"]
    assert (outside / "a").read_bytes() == b"one"
    assert (mirror / "ok").read_bytes() == b"ok"


def test_i2_a_link_that_has_the_files_name_is_neither_followed_nor_replaced(
    root: Root, mirror: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (mirror / "a").symlink_to(victim)
    assert reasons(write(root, wanted("/a", b"new"))) == {"/a": "NOT_A_REGULAR_FILE"}
    assert (mirror / "a").is_symlink()
    assert victim.read_bytes() == b"precious"


def test_i7_one_file_that_cannot_be_written_stops_no_other(root: Root, mirror: pathlib.Path) -> None:
    (mirror / "file").write_text("mine")
    (mirror / "dir" / "below").mkdir(parents=True)
    garbage = Wanted("/garbage", "garbage", None, None, sha(b"right"), 7, b"wrong")
    applied = write(
        root, garbage, wanted("/file/x", b"1"), wanted("/dir", b"2"), wanted("/" + "n" * 255, b"3"), wanted("/ok", b"4")
    )
    assert reasons(applied) == {
        "/garbage": "HASH_MISMATCH",
        "/file/x": "FILE_IN_THE_WAY",
        "/dir": "FILE_IS_DIRECTORY",
    }
    assert {each.path for each in applied.settled} == {"/" + "n" * 255, "/ok"}


def test_a_large_batch_is_forced_to_disk_at_once(root: Root, mirror: pathlib.Path) -> None:
    applied = write(root, *(wanted(f"/d{index}/f", b"x") for index in range(200)))
    assert applied.written_count == len(list(mirror.glob("d*/f"))) == 200
