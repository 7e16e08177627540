"""`relayfile config`: every setting in force, and where its value comes from."""

import json
from dataclasses import asdict

import typer


def config(as_json: bool = typer.Option(False, "--json", help="One JSON array, for machines.")) -> None:
    """Print every setting: value, default, range, meaning and source."""
    from relayfile.settings import describe

    rows = describe()
    if as_json:
        print(json.dumps([asdict(row) for row in rows], indent=2))
        return
    for row in rows:
        print(f"{row.name}={row.value}")
        print(f"    {row.meaning}")
        default = row.default or "(empty)"
        print(f"    default {default}; range: {row.range}; source: {row.source}; used by: {', '.join(row.used_by)}")
