import tracemalloc

from relayfile.ingest.sending.fold_wire import spool_ref
from relayfile.ingest.spool.ledger import RowLedger


def refs(*pairs: tuple[int, int]) -> bytes:
    return b"".join(spool_ref(*pair) for pair in pairs)


def test_a_row_goes_when_its_last_change_is_settled() -> None:
    ledger = RowLedger()
    ledger.load(1, "w", 3, 0, {"github": 100})
    ledger.load(2, "w", 1, 0, {"github": 50})
    assert ledger.settle(refs((1, 2), (1, 0))) == 2
    assert ledger.take_finished() == []
    assert ledger.take_dirty() == [(1, 0b101)]
    assert ledger.settle(refs((2, 0), (1, 1))) == 2
    assert ledger.take_finished() == [2, 1]
    assert ledger.take_finished() == []
    assert ledger.take_dirty() == []
    assert list(ledger.take_freed()) == [(("w", "github"), 150)]
    assert list(ledger.take_freed()) == []
    assert len(ledger) == 0


def test_an_answer_that_comes_twice_settles_once() -> None:
    ledger = RowLedger()
    ledger.load(1, "w", 2, 0, {"github": 10})
    assert ledger.settle(refs((1, 0))) == 1
    assert ledger.settle(refs((1, 0), (9, 0))) == 0
    assert ledger.settle(refs((1, 1))) == 1
    assert ledger.settle(refs((1, 1))) == 0


def test_what_was_settled_before_a_restart_counts() -> None:
    ledger = RowLedger()
    ledger.load(1, "w", 2, 0b01, {"github": 10})
    ledger.load(2, "w", 2, 0b11, {"github": 20})
    assert ledger.take_finished() == [2]
    assert ledger.settle(refs((1, 1))) == 1
    assert ledger.take_finished() == [1]


def test_settling_in_the_order_of_large_rows_is_exact() -> None:
    ledger = RowLedger()
    ledger.load(7, "w", 1_000, 0, {"github": 1})
    for ordinal in range(999):
        assert ledger.settle(refs((7, ordinal))) == 1
    assert ledger.take_finished() == []
    ledger.settle(refs((7, 999)))
    assert ledger.take_finished() == [7]


def test_rows_with_one_change_are_small_and_free_what_they_took() -> None:
    ledger = RowLedger()
    rows = range(1, 20_001)
    accounts = [(f"w{row % 7}", f"p{row % 3}") for row in rows]
    tracemalloc.start()
    for row, (workspace, provider) in zip(rows, accounts, strict=True):
        ledger.load(row, workspace, 1, 0, {provider: row})
    assert tracemalloc.get_traced_memory()[0] < 20 * len(rows)
    tracemalloc.stop()
    assert len(ledger) == len(rows)
    for row in rows:
        assert ledger.settle(refs((row, 0), (row, 0))) == 1
    freed = dict(ledger.take_freed())
    assert sum(freed.values()) == sum(rows)
    assert freed["w1", "p1"] == sum(row for row, account in zip(rows, accounts, strict=True) if account == ("w1", "p1"))
    assert ledger.take_finished() == list(rows)
    assert len(ledger) == 0


def test_a_row_of_several_providers_frees_each_ones_part() -> None:
    ledger = RowLedger()
    ledger.load(1, "w", 2, 0, {"github": 10, "linear": 20})
    ledger.settle(refs((1, 0)))
    assert list(ledger.take_freed()) == []
    ledger.settle(refs((1, 1)))
    assert dict(ledger.take_freed()) == {("w", "github"): 10, ("w", "linear"): 20}


def test_of_a_row_that_is_read_in_part_nothing_is_left_when_that_part_is_settled() -> None:
    ledger = RowLedger()
    assert ledger.load(1, "w", 3, 0, {"github": 10, "linear": 20}, waiting=0b010) == 0b010
    assert ledger.settle(refs((1, 0), (1, 2))) == 2
    assert (len(ledger), ledger.take_finished(), list(ledger.take_freed())) == (0, [], [])
    assert ledger.load(1, "w", 3, 0, {"github": 10, "linear": 20}) == 0b101, (
        "its bits are known before they are written"
    )
    assert ledger.take_dirty() == [(1, 0b101)]
    assert ledger.settle(refs((1, 1))) == 1
    assert ledger.take_finished() == [1]
    assert dict(ledger.take_freed()) == {("w", "github"): 10, ("w", "linear"): 20}


def test_what_is_in_memory_is_not_worked_on_twice() -> None:
    ledger = RowLedger()
    assert ledger.load(1, "w", 2, 0, {"github": 10, "linear": 20}, waiting=0b10) == 0b10
    assert ledger.load(1, "w", 2, 0, {"github": 10, "linear": 20}) == 0b01
    assert ledger.load(1, "w", 2, 0, {"github": 10, "linear": 20}) == 0b11
    assert ledger.load(2, "w", 1, 0, {"github": 10}) == 0
    assert ledger.load(2, "w", 1, 0, {"github": 10}) == 1
    assert ledger.settle(refs((1, 0), (1, 1), (2, 0))) == 3
    assert ledger.take_finished() == [1, 2]


def test_what_is_put_back_is_read_again_and_an_answer_for_it_is_not_counted() -> None:
    ledger = RowLedger()
    ledger.load(1, "w", 2, 0, {"github": 10, "linear": 20})
    ledger.load(2, "w", 1, 0, {"github": 10})
    ledger.put_back(refs((1, 1), (2, 0)))
    assert ledger.settle(refs((1, 1), (2, 0))) == 0
    assert ledger.settle(refs((1, 0))) == 1
    assert len(ledger) == 0
    assert ledger.take_dirty() == [(1, 0b01)]
    assert ledger.load(1, "w", 2, 0b01, {"github": 10, "linear": 20}) == 0b01
    assert ledger.load(2, "w", 1, 0, {"github": 10}) == 0


def test_a_finished_row_that_is_read_again_is_freed_once() -> None:
    ledger = RowLedger()
    for _ in range(2):
        assert ledger.load(1, "w", 2, 0b11, {"github": 10}) == 0b11
    assert ledger.take_finished() == [1]
    assert dict(ledger.take_freed()) == {("w", "github"): 10}
