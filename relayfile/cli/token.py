"""`relayfile token`: a signed token for a person, an agent or a service."""

import sys
from pathlib import Path

import typer

from relayfile.placement import check_any_workspace_id
from relayfile.settings.definition import parse_duration


def token(
    workspace: list[str] = typer.Option([], "--workspace", "-w", help="Workspace it grants; repeatable; * for all."),
    subject: str = typer.Option("developer", "--subject", help="Who holds it: the agent's or person's name."),
    scope: list[str] = typer.Option(["relayfile:*:*"], "--scope", help="Scope it grants; may be repeated."),
    rule_scope: list[str] = typer.Option(
        [], "--rule-scope", help="Text that rules of files ask for as scope:TEXT; grants nothing itself; repeatable."
    ),
    ttl: str = typer.Option("24h", "--ttl", help="How long it is valid, for example 15m or 7d."),
    service: str = typer.Option("", "--service", help="Make it a service identity of this name, for all workspaces."),
    data_dir: Path = typer.Option(
        Path("relayfile-data"), "--data-dir", envvar="RELAYFILE_DATA_DIR", help="Data directory whose key signs."
    ),
) -> None:
    """Print a token signed with the data directory's key. Whoever can read that key can do this; nobody else can."""
    from relayfile.auth import KeyStore, TokenSigner
    from relayfile.clock import SystemClock
    from relayfile.local.layout import Layout

    if not workspace and not service:
        raise typer.BadParameter("name at least one workspace, or * for all", param_hint="--workspace")
    if workspace and service:
        raise typer.BadParameter("a service identity is for all workspaces: leave it out", param_hint="--workspace")
    for each in scope:
        if not _grants_anything(each):
            raise typer.BadParameter(
                f"{each!r} grants nothing: a scope is relayfile:RESOURCE:ACTION[:PATH], such as relayfile:*:* or "
                f"relayfile:fs:read:/docs/**; there are {', '.join(sorted(_actions()))}, and manage for read and write",
                param_hint="--scope",
            )
    for each in workspace:
        if each != "*" and (why := check_any_workspace_id(each)):
            raise typer.BadParameter(f"{each!r} {why}", param_hint="--workspace")
    try:
        ttl_s = parse_duration(ttl)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--ttl") from None
    keys = KeyStore(Layout(data_dir.resolve()).keys)
    if not keys.public_file.exists():
        print(f"relayfile: {data_dir} had no key; a new one is in {keys.directory}", file=sys.stderr)
    signer = TokenSigner(keys.signing_key(), SystemClock())
    workspaces = "*" if service or "*" in workspace else tuple(workspace)
    print(signer.mint(subject, workspaces=workspaces, ttl_s=ttl_s, scopes=(*scope, *rule_scope), service=service))


def _grants_anything(scope: str) -> bool:
    """Whether any RPC takes it, for some path."""
    from relayfile.auth.scopes import grants

    return any(grants((scope,), action) for action in _actions())


def _actions() -> set[str]:
    """What RPCs ask for, as `fs:read`."""
    from relayfile.auth import REQUIREMENTS

    return {requirement.action for requirement in REQUIREMENTS.values() if requirement.action} | {"fs:manage"}
