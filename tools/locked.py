"""The part of requirements.lock that a package needs: the image installs no development tool.

Reads who needs what from the lock's own comments (`# via`), so that there is one lock and no second resolution. Stands
alone: the image's build runs it with a bare Python.

usage: python tools/locked.py LOCK run|NAME...     `run`: what relayfile itself needs
"""

import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

RUN = "run"
_PROJECT = "relayfile (pyproject.toml)"
_ENTRY = re.compile(r"(?P<name>[A-Za-z0-9._-]+)==")


class Locked(NamedTuple):
    """One package of the lock."""

    name: str
    text: str
    """Its lines: version, marker and hashes."""
    wanted_by: frozenset[str]


def entries(lock: str) -> Iterator[Locked]:
    """The packages of a lock, in its order."""
    for block in re.split(r"\n(?=[A-Za-z0-9])", lock.strip()):
        match = _ENTRY.match(block)
        if match is None:
            raise ValueError(f"not an entry of a lock: {block.splitlines()[0]!r}")
        lines = block.splitlines()
        notes = [line.strip().removeprefix("#").strip() for line in lines if line.strip().startswith("#")]
        wanted_by = {note.removeprefix("via").strip() for note in notes}
        text = "\n".join(line for line in lines if not line.strip().startswith("#"))
        yield Locked(match["name"], text, frozenset(wanted_by - {""}))


def needed(lock: str, names: Iterable[str]) -> list[Locked]:
    """The named packages, everything that they need, and of `run` all that the project itself does."""
    locked = list(entries(lock))
    wanted = {_PROJECT if name == RUN else name for name in names}
    unknown = wanted - {each.name for each in locked} - {_PROJECT}
    if unknown:
        raise ValueError(f"not in the lock: {', '.join(sorted(unknown))}")
    found: set[str] = set()
    while more := {
        each.name for each in locked if each.name not in found and (each.name in wanted or each.wanted_by & wanted)
    }:
        found |= more
        wanted |= more
    return [each for each in locked if each.name in found]


if __name__ == "__main__":
    print("\n".join(each.text for each in needed(Path(sys.argv[1]).read_text(), sys.argv[2:])))
