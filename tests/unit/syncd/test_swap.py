"""Files that an editor saves between any two steps of a swap, and places in which nothing can be put."""

import errno
import os
import pathlib
from collections.abc import Callable

import pytest

from relayfile.syncd import descriptors, kept
from relayfile.syncd.apply import Application, Applied, Wanted
from relayfile.syncd.reconcile import Mode
from relayfile.syncd.root import Root
from relayfile.syncd.rows import DiskStat
from tests.unit.syncd.test_apply import reasons, trashed, wanted, written_once

Exchange = Callable[[int, str, int, str], bool]


def save(path: pathlib.Path, content: bytes) -> None:
    """As editors do: another file takes the name."""
    aside = path.parent.parent / "aside"
    aside.write_bytes(content)
    aside.rename(path)


def write(root: Root, each: Wanted) -> Applied:
    return Application(root, ["u0"], 1).write([each])


def staged(mirror: pathlib.Path) -> list[str]:
    return [path.name for path in (mirror / ".relayfile" / "staging" / "incoming").iterdir()]


def versions(mirror: pathlib.Path) -> list[bytes]:
    return [path.read_bytes() for path in (mirror / ".relayfile").glob("conflicts/**/*") if path.is_file()]


def saved_before_each_swap(path: pathlib.Path, *contents: bytes, then: Exchange = descriptors.exchange) -> Exchange:
    saves = iter(contents)

    def exchange(first: int, name: str, second: int, other: str) -> bool:
        for content in saves:
            save(path, content)
            break
        return then(first, name, second, other)

    return exchange


@pytest.mark.parametrize("edited", [False, True])
def test_i3_a_file_saved_before_it_is_moved_away_has_its_name_again_where_names_cannot_be_swapped(
    root: Root, mirror: pathlib.Path, monkeypatch: pytest.MonkeyPatch, edited: bool
) -> None:
    stat = written_once(root, "/a", b"one")
    if edited:
        save(mirror / "a", b"mine 1")
    monkeypatch.setattr(descriptors, "exchange", saved_before_each_swap(mirror / "a", b"mine 2", then=lambda *_: False))
    applied = write(root, wanted("/a", b"two", b"one", stat))
    assert (mirror / "a").read_bytes() == b"mine 2"
    assert reasons(applied) == {"/a": "LOCAL_EDIT_KEPT"}
    assert (applied.settled, applied.conflicts, trashed(mirror), versions(mirror), staged(mirror)) == (
        [],
        [],
        [],
        [],
        [],
    )


@pytest.mark.parametrize("edited", [False, True])
def test_i3_a_file_saved_before_the_swap_that_cannot_go_back_is_in_the_trash(
    root: Root, mirror: pathlib.Path, monkeypatch: pytest.MonkeyPatch, edited: bool
) -> None:
    stat = written_once(root, "/a", b"one")
    if edited:
        save(mirror / "a", b"mine 1")
    real = descriptors.exchange
    turns = iter([real])
    swap_once = saved_before_each_swap(
        mirror / "a", b"mine 2", then=lambda *entries: next(turns, lambda *_: False)(*entries)
    )
    monkeypatch.setattr(descriptors, "exchange", swap_once)
    applied = write(root, wanted("/a", b"two", b"one", stat))
    assert (mirror / "a").read_bytes() == b"two"
    assert trashed(mirror) == [b"mine 2"]
    assert [each.acknowledged for each in applied.trashed] == [False]
    assert versions(mirror) == ([b"mine 1"] if edited else [])
    assert staged(mirror) == []


@pytest.mark.parametrize("edited", [False, True])
def test_i3_a_file_saved_between_the_two_swaps_is_kept_too(
    root: Root, mirror: pathlib.Path, monkeypatch: pytest.MonkeyPatch, edited: bool
) -> None:
    stat = written_once(root, "/a", b"one")
    if edited:
        save(mirror / "a", b"mine 1")
    monkeypatch.setattr(descriptors, "exchange", saved_before_each_swap(mirror / "a", b"mine 2", b"mine 3"))
    applied = write(root, wanted("/a", b"two", b"one", stat))
    assert reasons(applied) == {"/a": "LOCAL_EDIT_KEPT"}
    assert {(mirror / "a").read_bytes(), *trashed(mirror)} == {b"mine 2", b"mine 3"}
    assert [each.acknowledged for each in applied.trashed] == [False]
    assert staged(mirror) == []


@pytest.mark.parametrize("mode", [None, Mode.TWO_WAY, Mode.READ_ONLY])
def test_i7_a_file_that_cannot_be_replaced_leaves_nothing_behind_however_often_it_is_tried(
    root: Root, mirror: pathlib.Path, monkeypatch: pytest.MonkeyPatch, mode: Mode | None
) -> None:
    def refused(*_: object) -> bool:
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))

    stat = written_once(root, "/a", b"one")
    if mode is not None:
        save(mirror / "a", b"mine")
    monkeypatch.setattr(descriptors, "exchange", refused)
    for turn in range(3):
        application = Application(root, [f"u{turn}"], 1, mode or Mode.TWO_WAY)
        applied = application.write([wanted("/a", b"two", b"one", stat)])
        assert list(reasons(applied)) == ["/a"]
        assert (applied.conflicts, applied.trashed, applied.notices) == ([], [], [])
    assert (mirror / "a").read_bytes() == (b"one" if mode is None else b"mine")
    assert (staged(mirror), trashed(mirror), versions(mirror)) == ([], [], [])


@pytest.mark.parametrize("once_more", [False, True])
def test_i3_a_file_saved_in_a_read_only_mirror_before_it_is_removed_stays(
    root: Root, mirror: pathlib.Path, monkeypatch: pytest.MonkeyPatch, once_more: bool
) -> None:
    stat = written_once(root, "/a", b"one")
    save(mirror / "a", b"mine 1")
    hold, move = kept.hold, descriptors.move_if_absent

    def hold_and_save(directory: int, name: str, seen: DiskStat, into: int, kept_name: str) -> None:
        hold(directory, name, seen, into, kept_name)
        save(mirror / "a", b"mine 2")

    def move_and_save(first: int, name: str, second: int, other: str) -> None:
        move(first, name, second, other)
        if once_more and name == "a":
            save(mirror / "a", b"mine 3")

    monkeypatch.setattr(kept, "hold", hold_and_save)
    monkeypatch.setattr(descriptors, "move_if_absent", move_and_save)
    applied = Application(root, ["u0"], 1, Mode.READ_ONLY).remove([wanted("/a", None, b"one", stat)])
    assert (applied.deleted_count, applied.settled, reasons(applied)) == (0, [], {"/a": "LOCAL_EDIT_KEPT"})
    assert (mirror / "a").read_bytes() == (b"mine 3" if once_more else b"mine 2")
    assert trashed(mirror) == ([b"mine 2"] if once_more else [])
    assert [each.acknowledged for each in applied.trashed] == [False] * once_more
