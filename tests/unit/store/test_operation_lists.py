"""Lists of operations: every page is right, and those that an index answers look at nothing else."""

from collections.abc import Iterator

import apsw
import pytest

from relayfile.store.engine import WorkspaceKey
from relayfile.store.operation_view import OperationFilter
from relayfile.store.plan.writeback.rows import OperationKind, OperationRow, OperationState
from relayfile.store.sqlite import operation_lists
from relayfile.store.sqlite.connection import open_writer
from relayfile.store.sqlite.operation_lists import list_operations
from relayfile.store.sqlite.operation_rows import ALL_COLUMNS, COLUMNS, operation_columns
from relayfile.store.sqlite.schema import migrate

KEY, OTHER = WorkspaceKey(3, "acme"), WorkspaceKey(3, "acme-2")
COUNT = 600
LOOKED_AT_MAX = 40


def row(number: int) -> OperationRow:
    """Made one a second; the clock was set back by a minute once."""
    created_us = (number if number < 300 else number - 60) * 1_000_000
    return OperationRow(
        operation_id=f"{number:026d}",
        provider=("linear", "github")[number % 2],
        object_key="",
        kind=(OperationKind.WRITE, OperationKind.DELETE)[number % 5 == 0],
        state=(OperationState.SUCCEEDED, OperationState.PENDING)[number % 7 == 0],
        path=f"/linear/{'rare' if number % 97 == 5 else 'usual'}/{number % 13}.json",
        revision=number,
        actor="",
        created_us=created_us,
        claimable_us=0,
        ended_us=created_us,
    )


ROWS = [row(number) for number in range(COUNT)]


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[apsw.Connection]:
    path = tmp_path_factory.mktemp("lists") / "store.db"
    made = open_writer(path, 1 << 20)
    migrate(made, path)
    places = ", ".join("?" * (len(COLUMNS) + 3))
    query = f"INSERT INTO operation (shard_id, workspace_id, {ALL_COLUMNS}, change_number) VALUES ({places})"
    with made:
        made.executemany(query, [(*key, *operation_columns(each), 0) for key in (KEY, OTHER) for each in ROWS])
    yield made
    made.close()


@pytest.fixture
def connection(filled: apsw.Connection, monkeypatch: pytest.MonkeyPatch) -> Iterator[apsw.Connection]:
    monkeypatch.setattr(operation_lists, "LOOKED_AT_MAX", LOOKED_AT_MAX)
    filled.execute("BEGIN")
    yield filled
    filled.execute("ROLLBACK")


def pages(connection: apsw.Connection, chosen: OperationFilter, limit: int = 10) -> list[list[OperationRow]]:
    found, before_id = [], ""
    while True:
        page, before_id = list_operations(connection, KEY, chosen, before_id, limit)
        found.append(page)
        if not before_id:
            return found


SECOND = 1_000_000
FILTERS = {
    "all": OperationFilter(),
    "path of a file": OperationFilter(path="/linear/rare/5.json"),
    "path of a directory": OperationFilter(path="/linear/rare"),
    "root": OperationFilter(path="/"),
    "no such path": OperationFilter(path="/linear/rar"),
    "path and provider": OperationFilter(path="/linear/rare", providers=frozenset({"github"})),
    "time": OperationFilter(created_from_us=100 * SECOND, created_before_us=120 * SECOND),
    "time from": OperationFilter(created_from_us=590 * SECOND),
    "time before": OperationFilter(created_before_us=15 * SECOND),
    "a time that came twice": OperationFilter(created_from_us=230 * SECOND, created_before_us=310 * SECOND),
    "path and time": OperationFilter(path="/linear/rare", created_before_us=200 * SECOND),
    "state and kind": OperationFilter(states=frozenset({1}), kinds=frozenset({2})),
    "providers": OperationFilter(providers=frozenset({"linear", "github"}), kinds=frozenset({2})),
}
INDEXED = ("path of a file", "path of a directory", "no such path", "time", "time from", "time before")


@pytest.mark.parametrize("below_max", [operation_lists.BELOW_MAX, 3], ids=["few below", "many below"])
@pytest.mark.parametrize("name", FILTERS)
def test_all_that_is_chosen_is_listed_once(
    connection: apsw.Connection, monkeypatch: pytest.MonkeyPatch, name: str, below_max: int
) -> None:
    monkeypatch.setattr(operation_lists, "BELOW_MAX", below_max)
    chosen = FILTERS[name]
    listed = [each for page in pages(connection, chosen) for each in page]
    if name != "root":  # what has the path of the root is in no directory
        assert sorted(listed, key=lambda each: each.operation_id) == [each for each in ROWS if chosen.selects(each)]
    by_time = name in ("time", "time from", "time before", "a time that came twice")
    order = [(each.created_us if by_time else 0, each.operation_id) for each in listed]
    assert order == sorted(order, reverse=True), "newest first"


@pytest.mark.parametrize("name", INDEXED)
def test_no_page_of_what_an_index_answers_is_short_but_the_last(connection: apsw.Connection, name: str) -> None:
    sizes = [len(page) for page in pages(connection, FILTERS[name], limit=2)]
    assert all(size == 2 for size in sizes[:-1]), sizes


def test_a_page_goes_on_after_one_that_is_gone(connection: apsw.Connection) -> None:
    chosen = FILTERS["time"]
    page, before_id = list_operations(connection, KEY, chosen, "", 5)
    connection.execute("DELETE FROM operation WHERE operation_id >= ?", (before_id,))
    rest = [each for page in _rest(connection, chosen, before_id) for each in page]
    assert [*page, *rest] == [each for each in reversed(ROWS) if chosen.selects(each)]


def _rest(connection: apsw.Connection, chosen: OperationFilter, before_id: str) -> Iterator[list[OperationRow]]:
    while before_id:
        page, before_id = list_operations(connection, KEY, chosen, before_id, 5)
        yield page
