"""`relayfile send`: a signed webhook to the running system, as a provider would send it."""

import asyncio
import secrets
from enum import StrEnum
from pathlib import Path

import typer

from relayfile.errors import PeerFailed, StartRefused
from relayfile.placement import check_workspace_id

OK = 200


class SampleName(StrEnum):
    """The built-in payloads."""

    ISSUE = "issue"
    COMMENT = "comment"
    PULL_REQUEST = "pull-request"


def send(
    workspace: str = typer.Argument(help="The workspace that it is for."),
    payload: Path | None = typer.Argument(None, help="A file with the JSON body.", exists=True, dir_okay=False),
    event: str = typer.Option("", "--event", help="GitHub event name; default: the file's name up to the first `__`."),
    sample: SampleName | None = typer.Option(None, "--sample", help="Send a built-in payload instead of a file."),
    number: int = typer.Option(1, "--number", min=1, help="Number of the sample's issue or pull request."),
    edit: int = typer.Option(0, "--edit", min=0, help="Send the n-th edit of the sample issue instead of its opening."),
    data_dir: Path = typer.Option(
        Path("relayfile-data"), "--data-dir", envvar="RELAYFILE_DATA_DIR", help="Data directory of the running system."
    ),
) -> None:
    """Sign a GitHub webhook with the workspace's development secret, send it, and print the answer."""
    from relayfile.cli.connection import connect
    from relayfile.local import samples
    from relayfile.local.delivery import Sender, github_delivery

    if why := check_workspace_id(workspace):
        raise typer.BadParameter(f"{workspace!r} {why}", param_hint="workspace")
    if sample is SampleName.ISSUE:
        chosen = samples.issue("conveyor", number, edit=edit)
    elif sample is SampleName.COMMENT:
        chosen = samples.comment("conveyor", number, 10_000 + number)
    elif sample is SampleName.PULL_REQUEST:
        chosen = samples.pull_request("conveyor", number)
    elif payload is not None:
        named, separator, _ = payload.name.partition("__")
        if not event and not separator:
            raise typer.BadParameter(f"{payload.name} names no event; say which, such as `--event issues`")
        chosen = samples.Sample(event or named, secrets.token_hex(16), payload.read_bytes())
    else:
        raise typer.BadParameter("name a payload file or a --sample")
    connection = connect(data_dir)
    if not connection.ingest_http:
        raise StartRefused(why=f"no running system is recorded in {data_dir}; `relayfile send` is for `relayfile up`")
    delivery = github_delivery(
        workspace,
        chosen.event,
        chosen.body,
        secret=connection.layout.webhook_secret(workspace, "github"),
        delivery_id=chosen.delivery_id,
    )

    async def post() -> None:
        async with Sender(connection.ingest_http) as sender:
            answer = await sender.post(delivery)
        print(f"{answer.status} {answer.body.decode(errors='replace')}".rstrip())
        if answer.status != OK:
            raise PeerFailed(code=str(answer.status), detail="the webhook was not accepted")

    asyncio.run(post())
