"""Writes the generated pages of docs/ from the tables in the code; ``check`` fails when one is out of date.

usage: python -m tools.docs write|check
"""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from relayfile import status
from relayfile.auth import REQUIREMENTS, Reach, Requirement
from relayfile.errors import ERRORS, RelayfileError
from relayfile.settings import document
from tools import dashboards, prometheus_rule
from tools.metrics_page import metrics_page

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

Every call needs a token, sent as `authorization: Bearer TOKEN`: a JWT signed with RS256, ES256 or EdDSA by a key of
the key set (`kid` required), for the audience `relayfile`, with an expiry. `wks` (or `workspace_id`) names the
workspaces that it grants, one, a list, or `*`; `sub` (or `agent_name`) the caller; `scopes` (or `scope`) what it may
do. A leading `relay_pa_`, `relay_ws_`, `relay_id_` or `relay_ag_` is dropped. `relayfile token` makes one with the
system's own key.

Keys come from the file of public keys (`RELAYFILE_JWKS_FILE`, or the system's own) and from `RELAYFILE_JWKS_URL`, an
https URL that is fetched every `RELAYFILE_JWKS_REFRESH`; sooner when a token names a key that is not known, at most
every 10 s. Keys that cannot be fetched again count for one minute longer; then new tokens of that issuer get
`UNAVAILABLE`. A token that was verified counts until it expires, or until the keys change.

Reflection and health (`grpc.reflection.v1alpha`, `grpc.health.v1`) need no token: they tell what the API is and
whether it is up, and nothing of anybody's. The admin ports need none either and belong on loopback or inside the
cluster.

## Encryption

With `RELAYFILE_TLS_CERT_FILE` and `RELAYFILE_TLS_KEY_FILE` a process serves gRPC over TLS alone; with
`RELAYFILE_TLS_CA_FILE` too it lets in only callers with a certificate of that authority (mTLS), and trusts only
processes that have one. Processes show the same certificate when they call each other, so it must be good for both
sides and name the addresses that others use. Tokens count besides. A server takes replaced files at the next
handshake; calls to others use them from the next start. Commands read the same three variables, and need the
authority alone where callers need no certificate. The admin ports, and webhooks over HTTP, are not encrypted: an
ingress or a mesh does that.

## Scopes

A scope is `plane:resource:action[:path]`, split on the first three colons. Planes are `relayfile` and `*`;
`workspace:<label>:<action>[:path]` means the resource `fs`. Resource and action are what is required, or `*`;
`manage` implies read and write. A path is `/a/b` (exactly this), `/a/**` (the directory and everything under it),
`/a/*` (everything under it, at any depth), `/na*` (everything that starts so), `/` (the root alone) or `*`; none
means everything. Anything else (a star in the middle, `x**`, no leading slash, empty, `.` or `..` segments, a slash
at the end) matches nothing. Two words, as in `fs:read`, satisfy only that very requirement, and nothing as soon as
the token has a scope with a path for the same resource and action, valid or not. White space around a scope is
dropped; case counts.

A token that lacks the scope, or asks for a path outside of it, gets `PERMISSION_DENIED`. What answers about many
paths (listings, exports, queries, events) leaves out what is outside. RPCs without a path take no scope that has one.

## Rules of files

Entries of `semantics.permissions` may be rules: `[allow:|deny:]` and `public`, `any` or `*`, `scope:X` (the token has
this very scope), `agent:X` (its subject) or `workspace:X` (it grants that workspace). Other entries are tags. A
file's rules are its own and those of the files named `.relayfile.acl` in every directory above it: their
`semantics.permissions` (`relayfile write --permission RULE`), whatever their content is. A matching deny
denies; else a matching allow allows; else, where there is any rule, it is denied. They hold for every caller,
whatever its scopes, the processes of the cluster included, and for reads, writes, listings, exports, queries and
events. A file that rules hide is not there for a reader (`FILE_NOT_FOUND`, left out of lists); writing it is
`PERMISSION_DENIED`. An event keeps the file's own rules of its time, one of a move those at both ends: whom they shut
out then is not told later, when the file is gone or has others.

Changing rules (`permissions`, or any change of a `.relayfile.acl`) needs `fs:manage` on the directory, which also
overrides the rules for that one write, so that they can be taken back. Providers cannot touch `.relayfile.acl`: such
a change is dead-lettered. A directory that a caller may read in part has no totals in listings; its digest is served
over what the caller may read, when it asks for a `partial` one. A backup of a node holds everything: who may make one
may read it all.

## Rates

Each process may hold callers to rates, which are off unless set: calls and bytes in one second, for each workspace
(`RELAYFILE_WORKSPACE_CALLS_PER_SECOND_MAX`, `RELAYFILE_WORKSPACE_BYTES_PER_SECOND_MAX`) and for each caller in it
(`RELAYFILE_CALLER_...`). Two seconds' worth may come at once. What is more is `RESOURCE_EXHAUSTED` / `RATE_LIMITED`,
with the time to wait. Answers are counted when they are sent, and delay the next call. The processes of the cluster
are not held; webhooks over HTTP have shares of the spool instead.

## What each RPC needs

The scope `fs:read` in the table means `relayfile:fs:read:<path>`; the path is in the fields named behind it, `~`
marks the directory of which something must be granted, *filtered* what is only known later. What a request is about
decides which workspaces the token must grant: *workspace*, the one that it names; *cluster*, all of them (`*`);
*workspace or cluster*, all when it names none; *records*, each workspace that it touches; *service*, only processes
of the cluster itself call this. This page is generated (`make docs`).

| RPC | scope | of | about |
|---|---|---|---|
"""


def access_page() -> str:
    """docs/access.md: what each RPC needs."""
    rows = []
    for method, requirement in REQUIREMENTS.items():
        action = f"`{requirement.action}`" if requirement.reach is not Reach.SERVICE else "service identity"
        name, about = method.removeprefix("/relayfile.v1."), requirement.reach.value
        rows.append(f"| `{name}` | {action} | {_paths_of(requirement)} | {about} |\n")
    return ACCESS_INTRODUCTION + "".join(rows)


def _paths_of(requirement: Requirement) -> str:
    if requirement.tree_field:
        return f"`{requirement.tree_field}` ~"
    if requirement.path_fields:
        return ", ".join(f"`{field}`" for field in requirement.path_fields)
    return "*filtered*" if requirement.is_filtered else ""


PAGES: Mapping[str, Callable[[], str]] = {
    "docs/access.md": access_page,
    "docs/configuration.md": document.render,
    "docs/errors.md": errors_page,
    "docs/metrics.md": metrics_page,
    **dashboards.pages(),
    prometheus_rule.FILE: prometheus_rule.prometheus_rule,
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
