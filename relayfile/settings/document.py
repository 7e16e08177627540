"""docs/configuration.md, written from the definitions so that it cannot drift from them. Pure text; writes no file."""

from collections.abc import Iterable

from relayfile.settings.environment import GROUPS, Row, describe

_INTRODUCTION = """\
# Configuration

Every setting is an environment variable. This page is generated from the definitions (`make docs`); `relayfile config`
prints the same table with the values in force and where each came from.

* Durations have a unit: `250ms`, `3s`, `2m`, `1h`, `7d`. Sizes are bytes or have one: `65536`, `16MiB`.
* A value that cannot be read or is out of range, and a `RELAYFILE_` variable that does not exist, stop the process
  (exit 2) with one line that names it. Variables that Kubernetes makes for a Service (`RELAYFILE_..._SERVICE_HOST`,
  `RELAYFILE_..._PORT_...`) are passed over.
* Where a process listens on port 0 it takes any free port and writes it to `RELAYFILE_ADDRESS_FILE`.
"""


def render() -> str:
    """The whole page, with the defaults (the environment of whoever renders it plays no part)."""
    rows = describe({})
    sections = [_INTRODUCTION]
    everyone = tuple(process for process in GROUPS if process != "command line")
    for title, users in [("Every process", everyone), *((_title(process), (process,)) for process in GROUPS)]:
        chosen = [row for row in rows if row.used_by == users]
        if chosen:
            sections.append(f"## {title}\n\n" + _table(chosen))
    rest = [row for row in rows if row.used_by != everyone and len(row.used_by) > 1]
    if rest:
        sections.append("## Several processes\n\n" + _table(rest))
    return "\n".join(sections)


def _title(process: str) -> str:
    return {"command line": "The command line", "syncd": "syncd"}.get(process, process.capitalize())


def _table(rows: Iterable[Row]) -> str:
    lines = ["| variable | default | range | meaning |", "|---|---|---|---|"]
    lines += [f"| `{row.name}` | {_code(row.default)} | {_cell(row.range)} | {_cell(row.meaning)} |" for row in rows]
    return "\n".join(lines) + "\n"


def _code(value: str) -> str:
    return f"`{value}`" if value else "(empty)"


def _cell(value: str) -> str:
    return value.replace("|", "\\|").replace("<", "&lt;")
