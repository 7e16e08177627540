"""What a mirror shows of its local edits: it differs while one is on its way, and no longer than that."""

import json
import pathlib

from relayfile.syncd.audit import Verdict
from relayfile.syncd.mirror import Mirror
from tests.fakes.registry import add, level, serving, until
from tests.fakes.store import FakeStore


def shown(tmp_path: pathlib.Path) -> tuple[object, object]:
    """The verdict and the edits on their way, as agents read them."""
    status = json.loads((tmp_path / "mirror" / ".relayfile" / "status.json").read_text())
    return status["verdict"], status["unsent_edit_count"]


def verdict(mirror: Mirror) -> Verdict:
    assert mirror.seen.audited is not None
    return mirror.seen.audited.result.verdict


async def test_a_mark_that_comes_before_the_answer_is_judged_again_with_it(tmp_path: pathlib.Path) -> None:
    store = FakeStore()
    store.fill({"/a": "first"})
    async with store.served() as address, serving(address, tmp_path) as registry:
        mirror = add(registry, tmp_path, read_only=False)
        await level(mirror, store)
        store.knobs.lost_answers = 1  # the event of the edit and the mark behind it come, the answer does not
        (tmp_path / "mirror" / "a").write_bytes(b"edited")
        await until(lambda: store.knobs.lost_answers == 0)
        await until(lambda: shown(tmp_path) == ("exact", 0))
        assert verdict(mirror) is Verdict.EXACT
        assert mirror.seen.audited is not None
        assert mirror.seen.audited.result.at.revision == store.revision
        assert mirror.seen.fresh_time_us >= mirror.seen.audited.start_us


async def test_an_edit_that_waits_for_the_store_is_shown_at_once(tmp_path: pathlib.Path) -> None:
    store = FakeStore()
    store.fill({"/a": "first"})
    async with store.served() as address, serving(address, tmp_path) as registry:
        mirror = add(registry, tmp_path, read_only=False)
        await level(mirror, store)
        store.knobs.write_failures = 1_000_000
        (tmp_path / "mirror" / "a").write_bytes(b"edited")
        await until(lambda: shown(tmp_path) == ("different", 1))
        assert verdict(mirror) is Verdict.DIFFERENT
        store.knobs.write_failures = 0
        await until(lambda: shown(tmp_path) == ("exact", 0))


async def test_an_edit_that_the_store_refuses_is_listed_at_once(tmp_path: pathlib.Path) -> None:
    store = FakeStore()
    store.fill({"/a": "first"})
    async with store.served() as address, serving(address, tmp_path) as registry:
        mirror = add(registry, tmp_path, read_only=False)
        await level(mirror, store)
        store.knobs.refused_paths = {"/a": "PERMISSION_DENIED"}
        (tmp_path / "mirror" / "a").write_bytes(b"edited")
        await until(lambda: shown(tmp_path)[0] == "exact_except_listed")
        assert (tmp_path / "mirror" / ".relayfile" / "problems" / "a.json").exists()
