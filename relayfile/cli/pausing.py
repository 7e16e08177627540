"""`relayfile pause | resume`: hold a workspace's deliveries, or one provider's, while they are still accepted."""

import secrets
from pathlib import Path

import typer

from relayfile.cli.ingest_status import with_ingest
from relayfile.cli.running_system import DATA_DIR

WORKSPACE = typer.Argument(help="The workspace.")
_PROVIDER_HELP = "Only this provider; without it the whole workspace."


def pause(
    workspace: str = WORKSPACE,
    provider: str = typer.Option("", "--provider", help=_PROVIDER_HELP),
    reason: str = typer.Option(..., "--reason", help="Why; it is recorded with your name."),
    data_dir: Path = DATA_DIR,
) -> None:
    """Stop sending deliveries to the files while still accepting them, on every ingest process and over restarts."""
    from relayfile.v1 import ingest_pb2

    request = ingest_pb2.PauseRequest(
        workspace_id=workspace, provider=provider, reason=reason, request_id=secrets.token_hex(16)
    )
    with_ingest(data_dir, lambda stub, shown: stub.Pause(request, metadata=shown))
    print(f"{_what(workspace, provider)} paused; deliveries are accepted and wait")


def resume(
    workspace: str = WORKSPACE,
    provider: str = typer.Option("", "--provider", help=f"{_PROVIDER_HELP[:-1]} and each of its providers."),
    data_dir: Path = DATA_DIR,
) -> None:
    """End a pause: what was accepted meanwhile is sent, in order."""
    from relayfile.v1 import ingest_pb2

    request = ingest_pb2.ResumeRequest(workspace_id=workspace, provider=provider, request_id=secrets.token_hex(16))
    with_ingest(data_dir, lambda stub, shown: stub.Resume(request, metadata=shown))
    print(f"{_what(workspace, provider)} resumed")


def _what(workspace: str, provider: str) -> str:
    return f"{provider} of {workspace}:" if provider else f"{workspace}:"
