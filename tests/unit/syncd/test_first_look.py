"""After a first pull the directory is looked at only where something else may be in it than what was just written."""

import pathlib
from collections.abc import Mapping
from typing import Any

import pytest

from relayfile.syncd import mirror as mirror_module
from relayfile.syncd.audit import Verdict, sweep
from relayfile.syncd.progress import Progress, Via
from relayfile.syncd.pull import first_pull
from tests.fakes.mirror import opened, tree_of
from tests.fakes.registry import add, contents, serving
from tests.fakes.store import FakeStore

FILES = {"/a/b/1": "1", "/a/2": "2", "/top": "3"}


@pytest.mark.parametrize(
    ("remote", "local", "alone"),
    [
        ({}, {}, True),
        ({"/c/not.relayfileignore": "x"}, {}, True),
        ({}, {"elsewhere": "x"}, False),
        ({}, {"a/b/new": "x"}, False),
        ({}, {"top": "x"}, False),
        ({}, {"top": "3"}, False),
        ({"/a/.relayfileignore": "*.log"}, {}, False),
        ({"/.relayfileignore": "*.log"}, {}, False),
    ],
)
async def test_only_what_was_written_is_there(
    tmp_path: pathlib.Path, remote: Mapping[str, str], local: Mapping[str, str], alone: bool
) -> None:
    store = FakeStore()
    store.fill({**FILES, **remote})
    async with store.served() as address, opened(address, tmp_path) as mirror:
        for path, content in local.items():
            place = tmp_path / "mirror" / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(content)
        assert await first_pull(mirror, Progress(0.0), Via.ANY) is alone


@pytest.mark.parametrize(("remote", "looks"), [({}, 0), ({"/a/.relayfileignore": "2"}, 1)])
async def test_a_pull_looks_once_or_not_at_all(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, remote: Mapping[str, str], looks: int
) -> None:
    counted = 0

    async def counting(*args: Any, **named: Any) -> Any:
        nonlocal counted
        counted += 1
        return await sweep(*args, **named)

    monkeypatch.setattr(mirror_module, "sweep", counting)
    store = FakeStore()
    store.fill({**FILES, **remote})
    async with store.served() as address, serving(address, tmp_path) as registry:
        mirror = add(registry, tmp_path, follow=False)
        await mirror.pull(full=False, via=Via.ANY)
        assert mirror.seen.audited is not None
        assert mirror.seen.audited.result.verdict is (Verdict.EXACT_EXCEPT_LISTED if remote else Verdict.EXACT)
        assert mirror.seen.sweep_time_us
    assert counted == looks
    assert tree_of(tmp_path) == contents(store)
