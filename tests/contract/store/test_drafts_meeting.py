"""A draft that is moved to where another one was whose operations have not ended."""

from pathlib import Path

import pytest

from relayfile.clock import ManualClock
from tests.support.writeback import CLAIMED, DELETE, PENDING, SUPERSEDED, WRITE, staged

OLD, NEW = "/linear/old.json", "/linear/new.json"


@pytest.mark.parametrize("is_edited", [False, True])
async def test_each_keeps_its_own_operations(tmp_path: Path, is_edited: bool) -> None:
    clock = ManualClock()
    async with staged(tmp_path, clock) as stage:
        await stage.write(OLD, b"old")
        await stage.write(NEW, b"new")
        assert len(await stage.claim()) == 2
        clock.advance(2)
        await stage.delete(NEW)
        if is_edited:
            await stage.write(OLD, b"older")
        await stage.move(OLD, NEW)
        expected = {(OLD, WRITE, CLAIMED), (NEW, WRITE, CLAIMED), (NEW, DELETE, SUPERSEDED)}
        expected |= {(OLD, WRITE, SUPERSEDED)} if is_edited else set()
        expected |= {(OLD, DELETE, PENDING), (NEW, WRITE, PENDING)}
        told = await stage.operations()
        assert {(each.path, each.kind, each.state) for each in told} == expected
        clock.advance(20)
        assert await stage.claim() == []
        assert await stage.read(NEW) == (b"older" if is_edited else b"old")
