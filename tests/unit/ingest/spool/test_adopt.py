"""Spools that are looked at when their process is gone: whole, damaged, or hardly begun."""

import asyncio
from pathlib import Path

import pytest

from relayfile.errors import DataCorrupted, StartRefused
from relayfile.ingest.spool.adopt import LeftOfProvider, show
from relayfile.ingest.spool.spool_file import FILE_NAME
from relayfile.ingest.spool.spool_room import PAGE_BYTES
from tests.unit.ingest.spool.test_spool import append, envelope, opened


async def filled(directory: Path) -> bytearray:
    """A spool with 30 changes; its bytes."""
    async with opened(directory) as one:
        await append(one.spool, [envelope(number, f"w{number % 3}", 3_000) for number in range(30)])
    return bytearray((directory / FILE_NAME).read_bytes())


async def test_what_is_left_is_shown_by_workspace_and_provider(tmp_path: Path) -> None:
    await filled(tmp_path)
    assert show(tmp_path) == [LeftOfProvider(f"w{number}", "p", 10, 0) for number in range(3)]


@pytest.mark.parametrize("part", ["head", "pages", "end"])
async def test_a_damaged_spool_is_said_to_be_one(tmp_path: Path, part: str) -> None:
    stored = await filled(tmp_path)
    match part:
        case "head":
            stored[:100] = b"\xff" * 100
        case "pages":
            stored[PAGE_BYTES:] = b"\xff" * (len(stored) - PAGE_BYTES)
        case _:
            del stored[len(stored) // 2 :]
    await asyncio.to_thread((tmp_path / FILE_NAME).write_bytes, stored)
    with pytest.raises(DataCorrupted, match="spool"):
        show(tmp_path)


def test_a_spool_whose_process_died_making_it_holds_nothing(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).touch()
    assert show(tmp_path) == []


def test_a_directory_without_a_spool_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StartRefused, match=r"has no spool\.db"):
        show(tmp_path)
