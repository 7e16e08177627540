"""A scrape of a node costs the same with five workspaces and with five hundred."""

import sys
from pathlib import Path
from types import FrameType

from prometheus_client import CollectorRegistry, generate_latest

from tests.support.running_node import running_node


def cost(registry: CollectorRegistry) -> tuple[int, int]:
    """(lines, calls of functions) of one scrape: the same on every machine, unlike its time."""
    calls = 0

    def count(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        text = generate_latest(registry)
    finally:
        sys.setprofile(before)
    return text.count(b"\n"), calls


async def test_a_scrape_does_not_grow_with_workspaces(tmp_path: Path) -> None:
    async with running_node(tmp_path) as running:

        async def create(numbers: range) -> None:
            for number in numbers:
                await running.node.create_workspace(f"w-{number}")

        await create(range(5))
        generate_latest(running.registry)
        few = cost(running.registry)
        await create(range(5, 500))
        lines, calls = cost(running.registry)
        assert lines == few[0]
        assert calls < few[1] * 1.05  # a long number is written in a few calls more
        assert b"w-1" not in generate_latest(running.registry)
