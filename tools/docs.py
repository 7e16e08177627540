"""Writes the generated pages of docs/ from the tables in the code; ``check`` fails when one is out of date.

usage: python -m tools.docs write|check
"""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from prometheus_client import CollectorRegistry

from relayfile import status
from relayfile.auth import REQUIREMENTS, Reach
from relayfile.errors import ERRORS, RelayfileError
from relayfile.settings import document
from relayfile.telemetry import IngestInstruments, RpcInstruments, StoreInstruments, SyncdInstruments

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


ACCESS_INTRODUCTION = """\
# Access

Every call needs a token, sent as `authorization: Bearer TOKEN`: a JWT signed with RS256, ES256 or EdDSA by a key of the
key set (`kid` required), for the audience `relayfile`, with an expiry. `wks` (or `workspace_id`) names the workspaces
that it grants, one, a list, or `*`; `sub` (or `agent_name`) the caller; `scopes` (or `scope`) what it may do. A leading
`relay_pa_`, `relay_ws_`, `relay_id_` or `relay_ag_` is dropped. `relayfile token` makes one with the system's own key.

Reflection and health (`grpc.reflection.v1alpha`, `grpc.health.v1`) need no token: they tell what the API is and whether
it is up, and nothing of anybody's. The admin ports need none either and belong on loopback or inside the cluster.

The scope `fs:read` in the table means `relayfile:fs:read:<path>`. What a request is about decides which workspaces the
token must grant: *workspace*, the one that it names; *cluster*, all of them (`*`); *workspace or cluster*, all when it
names none; *records*, each workspace that it touches; *service*, only processes of the cluster itself call this.
In this version audience, expiry, signature and workspaces are enforced; scopes and the rules of files are not yet.
This page is generated (`make docs`).

| RPC | scope | about |
|---|---|---|
"""


def access_page() -> str:
    """docs/access.md: what each RPC needs."""
    rows = []
    for method, requirement in REQUIREMENTS.items():
        action = f"`{requirement.action}`" if requirement.reach is not Reach.SERVICE else "service identity"
        rows.append(f"| `{method.removeprefix('/relayfile.v1.')}` | {action} | {requirement.reach.value} |\n")
    return ACCESS_INTRODUCTION + "".join(rows)


METRICS_INTRODUCTION = """\
# Metrics

What `/metrics` on a process's admin port tells, beside the usual figures of a Python process. Labels have few values:
never a workspace, a path or an id. A histogram has the suffixes `_bucket`, `_sum` and `_count`.
This page is generated (`make docs`).

| metric | type | meaning |
|---|---|---|
"""


def metrics_page() -> str:
    """docs/metrics.md: every instrument."""
    registry = CollectorRegistry()
    for group in (RpcInstruments, IngestInstruments, StoreInstruments, SyncdInstruments):
        group.declare(registry)
    rows = []
    for metric in registry.collect():
        name = metric.name + ("_total" if metric.type == "counter" else "")
        rows.append(f"| `{name}` | {metric.type} | {metric.documentation} |\n")
    return METRICS_INTRODUCTION + "".join(rows)


PAGES: Mapping[str, Callable[[], str]] = {
    "docs/access.md": access_page,
    "docs/configuration.md": document.render,
    "docs/errors.md": errors_page,
    "docs/metrics.md": metrics_page,
}


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
