from relayfile.syncd.local_changes import CHANGES_MAX, LocalChanges
from relayfile.syncd.settle import CLOSED_S, WAIT_MAX_S, WRITING_S, Settling

SOON = CLOSED_S
LATER = WRITING_S


def test_a_closed_file_is_told_after_5_ms_and_once() -> None:
    settling = Settling()
    settling.made("a", 0.0)
    settling.wrote("a", 0.001)
    settling.closed("a", 0.002)
    assert [settling.next_at, settling.take(0.006)] == [0.002 + SOON, LocalChanges()]
    assert [settling.take(0.002 + SOON), settling.next_at] == [LocalChanges(("a",)), None]
    assert not settling.take(1.0)


def test_a_file_being_written_waits_100_ms_after_the_last_write_and_no_longer_than_5_s() -> None:
    settling = Settling()
    settling.wrote("a", 0.0)
    settling.wrote("a", 0.09)
    assert not settling.take(0.15)
    assert settling.take(0.09 + LATER) == LocalChanges(("a",))
    told = []
    for step in range(1_000):
        settling.wrote("log", step / 100)
        if settling.take(step / 100):
            told.append(step / 100)
    assert len(told) == 2
    assert told[0] <= WAIT_MAX_S


def test_a_rename_is_a_move_and_a_chain_of_them_one() -> None:
    settling = Settling()
    settling.moved("a", "b", 0.0)
    settling.moved("b", "c", 0.001)
    assert settling.take(0.001 + SOON) == LocalChanges(moves=(("a", "c"),))
    assert settling.take(1.0) == LocalChanges(("b",)), "a scan may have met it"
    settling.moved("a", "b", 2.0)
    settling.moved("b", "a", 2.001)
    assert settling.take(3.0) == LocalChanges(("a", "b"))


def test_a_file_written_aside_and_renamed_into_place_is_a_change_of_its_place() -> None:
    settling = Settling()
    settling.made("a.tmp", 0.0)
    settling.closed("a.tmp", 0.001)
    settling.moved("a.tmp", "a", 0.002)
    assert settling.take(0.002 + SOON) == LocalChanges(("a",))
    assert settling.take(1.0) == LocalChanges(("a.tmp",)), "a scan may have met it"
    assert settling.next_at is None


def test_a_changed_and_renamed_file_is_both() -> None:
    settling = Settling()
    settling.closed("a", 0.0)
    settling.moved("a", "b", 0.001)
    settling.made("a", 0.002)
    settling.closed("a", 0.003)
    assert settling.take(1.0) == LocalChanges(("a", "b"), (("a", "b"),))


def test_a_renamed_file_that_is_removed_or_overwritten_leaves_its_first_name_to_be_looked_at() -> None:
    settling = Settling()
    settling.moved("a", "b", 0.0)
    settling.removed("b", 0.001)
    assert settling.take(1.0) == LocalChanges(("a", "b"))
    settling.moved("a", "b", 2.0)
    settling.moved("c", "b", 2.001)
    assert settling.take(3.0) == LocalChanges(("a",), (("c", "b"),))


def test_two_files_that_swap_names_are_two_moves() -> None:
    settling = Settling()
    settling.moved("a", "tmp", 0.0)
    settling.moved("b", "a", 0.001)
    settling.moved("tmp", "b", 0.002)
    assert set(settling.take(1.0).moves) == {("b", "a"), ("a", "b")}


def test_what_came_and_went_is_told_once_and_a_removal_waits_for_its_successor() -> None:
    settling = Settling()
    settling.made("tmp", 0.0)
    settling.closed("tmp", 0.001)
    settling.removed("tmp", 0.002)
    assert not settling.take(0.002 + SOON)
    assert settling.take(0.5) == LocalChanges(("tmp",)), "a scan may have met it"
    assert settling.next_at is None
    settling.removed("a", 1.0)
    assert not settling.take(1.0 + SOON)
    settling.made("a", 1.02)
    settling.closed("a", 1.03)
    assert settling.take(1.03 + SOON) == LocalChanges(("a",))
    # A name that was there before is told when it is gone for good.
    settling.removed("a", 2.0)
    settling.made("a", 2.001)
    settling.removed("a", 2.002)
    assert settling.take(3.0) == LocalChanges(("a",))


def test_a_renamed_directory_is_scanned_at_both_places() -> None:
    settling = Settling()
    settling.closed("d/a", 0.0)
    settling.moved("x", "d/y", 0.0)
    settling.closed("dd", 0.0)
    settling.renamed("d", "e", 0.001)
    assert settling.take(0.001 + SOON) == LocalChanges(("dd",), directories=("d", "e"))
    assert settling.take(1.0) == LocalChanges(("x",))


def test_directories_below_others_are_not_told_twice() -> None:
    settling = Settling()
    for directory in ("a/b", "a", "a-b", "c/d"):
        settling.scan(directory, 0.0)
    assert settling.take(1.0).directories == ("a", "a-b", "c/d")


def test_too_much_becomes_a_gap_and_a_gap_says_all() -> None:
    settling = Settling(places_max=10)
    for index in range(12):
        settling.closed(f"f{index}", 0.0)
    changes = settling.take(1.0)
    assert changes.gap
    assert len(changes.disk_paths) <= 2
    settling.lost(2.0)
    settling.scan("d", 2.0)
    assert settling.take(3.0) == LocalChanges(gap=True)
    for index in range(200):
        settling.scan(f"d{index}", 4.0)
    assert settling.take(5.0) == LocalChanges(gap=True)


def test_more_than_one_value_holds_is_told_in_several() -> None:
    settling = Settling()
    for index in range(CHANGES_MAX + 10):
        settling.closed(f"f{index}", 0.0)
    sizes = [len(settling.take(1.0).disk_paths) for _ in range(3)]
    assert sizes == [CHANGES_MAX, 10, 0]


def test_refused_names_are_told_apart() -> None:
    settling = Settling()
    settling.refused("bad\udcff", 0.0)
    assert settling.take(1.0) == LocalChanges(refused=("bad\udcff",))
