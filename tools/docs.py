"""Writes the generated pages of docs/ from the tables in the code; ``check`` fails when one is out of date.

usage: python tools/docs.py write|check
"""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from relayfile.settings import document

ROOT = Path(__file__).resolve().parent.parent
PAGES: Mapping[str, Callable[[], str]] = {"docs/configuration.md": document.render}


def stale() -> list[str]:
    """The pages whose file is not what the code says."""
    return [
        name for name, render in PAGES.items() if not (ROOT / name).is_file() or (ROOT / name).read_text() != render()
    ]


def main(command: str) -> int:
    outdated = stale()
    if command == "check":
        for name in outdated:
            print(f"{name} is out of date: run `make docs`", file=sys.stderr)
        return 1 if outdated else 0
    for name in outdated:
        (ROOT / name).parent.mkdir(parents=True, exist_ok=True)
        (ROOT / name).write_text(PAGES[name]())
        print(f"wrote {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else "write"))
