"""`.relayfile/problems/` says what the list says, where an agent looks."""

import json
import pathlib

import pytest

from relayfile.syncd.mirror import Mirror
from relayfile.syncd.problem_files import ProblemFiles, contents
from relayfile.syncd.progress import Via
from relayfile.syncd.rows import Problem
from relayfile.syncd.shown import MirrorState
from tests.fakes.mirror import opened, tree_of
from tests.fakes.registry import add, serving, until
from tests.fakes.store import FakeStore


def problem(path: str, reason: str = "DISK_FULL") -> Problem:
    return Problem(path, reason, "why", 7, 1_000_000)


def files(tmp_path: pathlib.Path) -> dict[str, dict[str, object]]:
    directory = tmp_path / "mirror" / ".relayfile" / "problems"
    return {
        path.relative_to(directory).as_posix(): json.loads(path.read_text())
        for path in directory.rglob("*")
        if path.is_file() and path.suffix == ".json"  # not what is being written
    }


async def level(mirror: Mirror, store: FakeStore) -> None:
    await store.notify()
    await until(lambda: mirror.seen.state is MirrorState.FOLLOWING and mirror.seen.remote_revision == store.revision)


async def test_a_refused_write_back_is_listed_until_the_next_one_is_taken(tmp_path: pathlib.Path) -> None:
    store = FakeStore()
    store.fill({"/github/issues/1.json": "{}", "/github/issues/2.json": "{}"})
    async with store.served() as address, serving(address, tmp_path) as registry:
        mirror = add(registry, tmp_path)
        await level(mirror, store)
        revision = store.write_back("/github/issues/1.json", taken=False)
        await level(mirror, store)
        await until(lambda: bool(files(tmp_path)))
        (found,) = files(tmp_path).items()
        assert found[0] == "github/issues/1.json.json"
        assert (found[1]["path"], found[1]["reason"]) == ("/github/issues/1.json", "WRITEBACK_FAILED")
        assert (found[1]["revision"], found[1]["attempts"], found[1]["more"]) == (revision, 1, [])
        assert "op-3" in str(found[1]["message"])
        assert str(found[1]["since"]).startswith("20")
        await until(lambda: json.loads((tmp_path / "mirror/.relayfile/status.json").read_text())["problem_count"] == 1)
        # The file is on disk as the store has it all the same, and a newer version of it says nothing of the provider.
        store.put("/github/issues/1.json", '{"again": 1}')
        await level(mirror, store)
        assert tree_of(tmp_path)["/github/issues/1.json"] == b'{"again": 1}'
        assert mirror.opened is not None
        assert mirror.opened.journal.problems.total() == 1
        store.write_back("/github/issues/2.json", taken=True)
        await level(mirror, store)
        assert mirror.opened.journal.problems.total() == 1
        store.write_back("/github/issues/1.json", taken=True)
        await level(mirror, store)
        await until(lambda: files(tmp_path) == {})
        assert mirror.opened.journal.problems.total() == 0
        await until(lambda: not (tmp_path / "mirror/.relayfile/problems/github").exists())


async def test_a_refusal_is_heard_of_after_a_time_away_and_kept_over_a_restart(tmp_path: pathlib.Path) -> None:
    store = FakeStore()
    store.fill({"/a": "1"})
    async with store.served() as address:
        async with serving(address, tmp_path) as registry:
            mirror = add(registry, tmp_path, follow=False)
            await mirror.pull(full=False, via=Via.ANY)
        store.write_back("/a", taken=True)
        store.write_back("/a", taken=False)
        async with serving(address, tmp_path) as registry:
            (mirror,) = registry
            await mirror.pull(full=False, via=Via.ANY)
            assert files(tmp_path)["a.json"]["reason"] == "WRITEBACK_FAILED"
        stray = tmp_path / "mirror" / ".relayfile" / "problems" / "stray.json"
        stray.write_text("of an earlier run")
        async with serving(address, tmp_path) as registry:
            (mirror,) = registry
            await mirror.pull(full=False, via=Via.ANY)
            assert list(files(tmp_path)) == ["a.json"]


async def test_i2_what_stands_in_the_way_is_left_and_nothing_is_followed(tmp_path: pathlib.Path) -> None:
    store = FakeStore()
    outside = tmp_path / "outside"
    outside.mkdir()
    async with store.served() as address, opened(address, tmp_path) as mirror:
        (tmp_path / "mirror" / ".relayfile" / "problems").symlink_to(outside)
        (outside / "precious").write_text("x")
        shown = ProblemFiles(mirror.root.own_fd, mirror.journal, mirror.writer)
        mirror.journal.problems.refused([problem("/a"), problem("/a.json/b"), problem("/c")])
        await shown.agree()
        assert [path.name for path in outside.iterdir()] == ["precious"]
        # `/a` and a file below `/a.json` want the same name: one of them has it, and both are in the list.
        assert "c.json" in files(tmp_path)
        assert mirror.journal.problems.total() == 3
        mirror.journal.problems.accepted(["/a", "/a.json/b", "/c"])
        await shown.agree()
        assert files(tmp_path) == {}


@pytest.mark.parametrize("path", ["/" + "x" * 300, "/a/../b", "/" + "é" * 126, "/new\nline"])
def test_every_path_has_a_name_that_a_disk_takes(path: str) -> None:
    ((name, content),) = contents([problem(path), problem(path, "WRITEBACK_FAILED")]).items()
    assert all(0 < len(segment.encode()) <= 255 for segment in name.split("/"))
    assert ".." not in name
    told = json.loads(content)
    assert (told["path"], told["reason"], told["more"][0]["reason"]) == (path, "DISK_FULL", "WRITEBACK_FAILED")
