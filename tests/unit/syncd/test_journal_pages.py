"""Pages of the journal's rows by path: what they hold, and that each costs what is on it, however long the journal."""

import hashlib
import pathlib
from collections.abc import Callable, Iterator

import apsw
import pytest

from relayfile.paths import contains
from relayfile.syncd.journal import Journal
from relayfile.syncd.rows import FileState, RemoteFile

DIRECTORIES = ("/a", "/a-b", "/a.b", "/a/b", "/a/b/c", "/a0", "/ab")
PATHS = sorted(
    [*(f"{directory}/{index:03}" for directory in DIRECTORIES for index in range(40)), "/a/bc", "/a/b!", "/z"]
)
MANY = 20_000
PAGE = 100

Page = Callable[[Journal, str, str], list[str]]
PAGES: dict[str, Page] = {
    "rows": lambda journal, below, after: [row.path for row in journal.rows(after, PAGE, below=below)],
    "pending": lambda journal, below, after: [
        row.path for row in journal.rows(after, PAGE, state=FileState.PENDING, below=below)
    ],
    "hashes": lambda journal, below, after: [row[0] for row in journal.listing.hashes(below, after, PAGE)],
    "entries": lambda journal, below, after: [
        row[0] for row in journal.listing.entries_in(below, after + "\0", PAGE)[0]
    ],
}


def filled(directory: pathlib.Path, paths: list[str]) -> Journal:
    journal = Journal(directory / "journal.db", ["/"])
    journal.learn([RemoteFile(path, 1, hashlib.sha256(path.encode()).digest(), 1) for path in paths], None)
    return journal


@pytest.fixture
def journal(tmp_path: pathlib.Path) -> Iterator[Journal]:
    journal = filled(tmp_path, PATHS)
    yield journal
    journal.close()


@pytest.mark.parametrize("below", ["/", "/a", "/a/b", "/a-b", "/z", "/none"])
@pytest.mark.parametrize("after", ["", "/a", "/a-b/020", "/a/b/039", "/a/b", "/zz"])
@pytest.mark.parametrize("name", ["rows", "pending", "hashes"])
def test_a_page_holds_what_is_below_and_after_by_path(journal: Journal, name: str, below: str, after: str) -> None:
    wanted = [path for path in PATHS if contains(below, path) and path > after]
    assert PAGES[name](journal, below, after) == wanted[:PAGE]


@pytest.mark.parametrize("below", ["/", "/a", "/a/b", "/a-b", "/z", "/none"])
@pytest.mark.parametrize("limit", [1, 7, 1_000])
def test_entries_are_the_files_and_directories_directly_in_one(journal: Journal, below: str, limit: int) -> None:
    prefix = below if below == "/" else below + "/"
    inside = [path[len(prefix) :] for path in PATHS if path.startswith(prefix)]
    files: list[str] = []
    directories: list[str] = []
    after = ""
    while True:
        found, named, after = journal.listing.entries_in(below, after, limit)
        files += [path for path, _ in found]
        directories += named
        if not after:
            break
    assert files == [prefix + each for each in inside if "/" not in each]
    assert directories == sorted(
        {each.partition("/")[0] for each in inside if "/" in each}, key=lambda each: each + "/"
    )


@pytest.mark.parametrize("name", PAGES)
def test_a_page_costs_what_is_on_it(tmp_path: pathlib.Path, name: str) -> None:
    journal = filled(tmp_path, [f"/flat/{index:06}" for index in range(MANY)])
    [db] = [each for each in apsw.connections() if each.filename == str(tmp_path / "journal.db")]
    steps = 0

    def stepped() -> bool:
        nonlocal steps
        steps += 100
        return False

    db.set_progress_handler(stepped, 100)
    try:
        for below, after in (("/", ""), ("/flat", ""), ("/flat", f"/flat/{MANY // 2:06}")):
            steps = 0
            assert PAGES[name](journal, below, after) or name == "entries"
            assert steps < 50 * PAGE, f"{steps} steps for a page of {PAGE} rows below {below!r} after {after!r}"
    finally:
        journal.close()
