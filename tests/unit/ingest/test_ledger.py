from relayfile.ingest.fold_wire import spool_ref
from relayfile.ingest.ledger import RowLedger


def refs(*pairs: tuple[int, int]) -> bytes:
    return b"".join(spool_ref(*pair) for pair in pairs)


def test_a_row_goes_when_its_last_change_is_settled() -> None:
    ledger = RowLedger()
    ledger.load(1, 3, 0, 100)
    ledger.load(2, 1, 0, 50)
    assert ledger.settle(refs((1, 2), (1, 0))) == 2
    assert ledger.take_finished() == []
    assert ledger.take_dirty() == [(1, 0b101)]
    assert ledger.settle(refs((2, 0), (1, 1))) == 2
    assert ledger.take_finished() == [2, 1]
    assert ledger.take_finished() == []
    assert ledger.take_dirty() == []
    assert ledger.take_freed_bytes() == 150
    assert ledger.take_freed_bytes() == 0
    assert len(ledger) == 0


def test_an_answer_that_comes_twice_settles_once() -> None:
    ledger = RowLedger()
    ledger.load(1, 2, 0, 10)
    assert ledger.settle(refs((1, 0))) == 1
    assert ledger.settle(refs((1, 0), (9, 0))) == 0
    assert ledger.settle(refs((1, 1))) == 1
    assert ledger.settle(refs((1, 1))) == 0


def test_what_was_settled_before_a_restart_counts() -> None:
    ledger = RowLedger()
    ledger.load(1, 2, 0b01, 10)
    ledger.load(2, 2, 0b11, 20)
    assert ledger.take_finished() == [2]
    assert ledger.settle(refs((1, 1))) == 1
    assert ledger.take_finished() == [1]


def test_settling_in_the_order_of_large_rows_is_exact() -> None:
    ledger = RowLedger()
    ledger.load(7, 1_000, 0, 1)
    for ordinal in range(999):
        assert ledger.settle(refs((7, ordinal))) == 1
    assert ledger.take_finished() == []
    ledger.settle(refs((7, 999)))
    assert ledger.take_finished() == [7]
