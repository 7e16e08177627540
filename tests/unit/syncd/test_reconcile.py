"""A tiny language for one file on three sides: `-` nothing, `1` `2` contents; the disk also has `=` (as written),
`d` a directory, `s` something special."""

import itertools

import pytest

from relayfile.syncd.reconcile import Local, LocalKind, Step, reconcile


def content(sign: str) -> bytes | None:
    return None if sign == "-" else sign.encode() * 32


def disk(sign: str) -> Local:
    kinds = {"-": LocalKind.ABSENT, "=": LocalKind.AS_WRITTEN, "d": LocalKind.DIRECTORY, "s": LocalKind.SPECIAL}
    return Local(kinds[sign]) if sign in kinds else Local(LocalKind.FILE, content(sign))


TABLE = """
base local remote -> step
-    -     1      -> WRITE
-    1     1      -> ADOPT
-    2     1      -> LIST LOCAL_FILE_IN_THE_WAY
-    d     1      -> LIST FILE_IS_DIRECTORY
-    s     1      -> LIST NOT_A_REGULAR_FILE
-    -     -      -> FORGET
-    2     -      -> FORGET
-    d     -      -> FORGET
1    =     1      -> NOTHING
1    =     2      -> REPLACE
1    =     -      -> REMOVE
1    -     1      -> WRITE
1    -     2      -> WRITE
1    -     -      -> FORGET
1    2     2      -> ADOPT
1    2     1      -> LIST LOCAL_EDIT_KEPT
1    2     3      -> LIST LOCAL_EDIT_KEPT
1    2     -      -> LIST LOCAL_EDIT_KEPT
1    d     2      -> LIST FILE_IS_DIRECTORY
1    d     -      -> LIST LOCAL_EDIT_KEPT
1    s     2      -> LIST NOT_A_REGULAR_FILE
1    s     -      -> LIST LOCAL_EDIT_KEPT
"""
ROWS = [line.split() for line in TABLE.strip().splitlines()[1:]]


@pytest.mark.parametrize("row", ROWS, ids=" ".join)
def test_the_table(row: list[str]) -> None:
    base, local, remote, _, step, *reason = row
    action = reconcile(content(base), disk(local), content(remote))
    assert (action.step.name, action.reason) == (step, "".join(reason))


def test_i3_only_our_own_untouched_file_is_ever_replaced_or_removed() -> None:
    for base, local, remote in itertools.product("-12", "-=12ds", "-12"):
        if local == "=" and base == "-":
            continue  # what was never written cannot be as written
        action = reconcile(content(base), disk(local), content(remote))
        if action.step in (Step.REPLACE, Step.REMOVE):
            assert local == "="
        if action.step is Step.WRITE:
            assert local == "-"
