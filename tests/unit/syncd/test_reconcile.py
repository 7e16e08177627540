"""A tiny language for one file on three sides: `-` nothing, `1` `2` contents; the disk also has `=` (as written),
`d` a directory, `s` something special."""

import itertools

import pytest

from relayfile.syncd.reconcile import Local, LocalKind, Mode, Step, reconcile


def content(sign: str) -> bytes | None:
    return None if sign == "-" else sign.encode() * 32


def disk(sign: str) -> Local:
    kinds = {"-": LocalKind.ABSENT, "=": LocalKind.AS_WRITTEN, "d": LocalKind.DIRECTORY, "s": LocalKind.SPECIAL}
    return Local(kinds[sign]) if sign in kinds else Local(LocalKind.FILE, content(sign))


TABLE = """
base local remote -> step; of a read-only mirror where it differs
-    -     1      -> WRITE
-    1     1      -> ADOPT
-    2     1      -> KEEP BOTH_CREATED       | LIST LOCAL_FILE_IN_THE_WAY
-    d     1      -> LIST FILE_IS_DIRECTORY
-    s     1      -> LIST NOT_A_REGULAR_FILE
-    -     -      -> FORGET
-    2     -      -> PUSH                    | LIST NOT_PUSHED
-    d     -      -> FORGET
-    s     -      -> FORGET
1    =     1      -> NOTHING
1    1     1      -> NOTHING
1    =     2      -> REPLACE
1    1     2      -> REPLACE
1    =     -      -> REMOVE
1    -     1      -> PUSH_DELETE             | WRITE
1    -     2      -> WRITE DELETED_LOCALLY   | WRITE
1    -     -      -> FORGET
1    2     2      -> ADOPT
1    2     1      -> PUSH                    | RESTORE
1    2     3      -> KEEP BOTH_MODIFIED      | RESTORE
1    2     -      -> PUSH DELETED_REMOTELY   | RESTORE
1    d     1      -> PUSH_DELETE             | LIST FILE_IS_DIRECTORY
1    d     2      -> LIST FILE_IS_DIRECTORY
1    d     -      -> FORGET
1    s     1      -> LIST NOT_A_REGULAR_FILE
1    s     2      -> LIST NOT_A_REGULAR_FILE
1    s     -      -> FORGET
"""
ROWS = [line.split() for line in TABLE.strip().splitlines()[1:]]


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("row", ROWS, ids=" ".join)
def test_the_table(row: list[str], mode: Mode) -> None:
    base, local, remote, _, *actions = row
    two_way, _, read_only = " ".join(actions).partition(" | ")
    expected = read_only if read_only and mode is Mode.READ_ONLY else two_way
    action = reconcile(content(base), disk(local), content(remote), mode)
    why = action.reason or (action.conflict.name if action.conflict is not None else "")
    assert f"{action.step.name} {why}".strip() == expected


@pytest.mark.parametrize("mode", Mode)
def test_i3_only_our_own_untouched_file_is_ever_replaced_or_removed(mode: Mode) -> None:
    for base, local, remote in itertools.product("-12", "-=12ds", "-12"):
        if local == "=" and base == "-":
            continue  # what was never written cannot be as written
        action = reconcile(content(base), disk(local), content(remote), mode)
        if action.step in (Step.REPLACE, Step.REMOVE):
            assert local in ("=", base)
        if action.step is Step.WRITE:
            assert local == "-"


def test_a_modification_beats_a_deletion_and_nothing_is_sent_from_a_read_only_mirror() -> None:
    for base, local, remote in itertools.product("-12", "-12ds", "-12"):
        sent = reconcile(content(base), disk(local), content(remote)).step in (Step.PUSH, Step.PUSH_DELETE)
        if sent:
            assert remote in ("-", base), "what the store changed is never written over"
        step = reconcile(content(base), disk(local), content(remote), Mode.READ_ONLY).step
        assert step not in (Step.PUSH, Step.PUSH_DELETE, Step.KEEP)
