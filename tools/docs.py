"""Writes the generated pages of docs/ from the tables in the code; ``check`` fails when one is out of date.

usage: python tools/docs.py write|check
"""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from relayfile import status
from relayfile.errors import ERRORS, RelayfileError
from relayfile.settings import document

ROOT = Path(__file__).resolve().parent.parent

ERRORS_INTRODUCTION = f"""\
# Errors

Every status that Relayfile itself makes carries one `google.rpc.ErrorInfo` with the domain `{status.DOMAIN}`, a reason
and metadata for programs. Invalid input also has a `google.rpc.BadRequest` with up to 20 field violations (the total
is in the metadata); `UNAVAILABLE` and `RESOURCE_EXHAUSTED` also have a `google.rpc.RetryInfo`. A failure without a
reason of its own is `INTERNAL` / `INTERNAL`: its text stays in the process's log, under the correlation id that the
status names. This page is generated (`make docs`).

| reason | code | metadata | message |
|---|---|---|---|
"""


def errors_page() -> str:
    """docs/errors.md: the table of reasons."""
    return ERRORS_INTRODUCTION + "".join(_row(kind) for kind in ERRORS)


def _row(kind: type[RelayfileError]) -> str:
    code = "the peer's" if kind.reason == "PEER_FAILED" else f"`{status.CODES[kind].name}`"
    metadata = ", ".join(f"`{name}`" for name in kind.metadata_keys()) or "none"
    return f"| `{kind.reason}` | {code} | {metadata} | {kind.template()} |\n"


PAGES: Mapping[str, Callable[[], str]] = {"docs/configuration.md": document.render, "docs/errors.md": errors_page}


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
