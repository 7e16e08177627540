"""The command `relayfile`: the only argument parsing and the only printing.

One module per group of commands; each imports what it needs when it runs, so that `relayfile --help` stays fast.
Exit codes: 0 done; 1 the system answered with an error, or what was asked about is not as it should be (`audit`,
`scrub`, `status --check`, `top --once`, `providers test`, `dead-letters replay` of ids that are not there, `cat` of a
file that is not; docs/mirrors.md has those of `mirror`); 2 a setting, an argument or the state of the data directory is
wrong; 3 (`ingest`, `spool adopt`) accepted deliveries are left in the spool; 130 ended by Ctrl-C.
"""

import sys
from collections.abc import Callable

import typer

from relayfile import __version__
from relayfile.cli import (
    address,
    config,
    copies,
    dead_letters,
    demo,
    exporting,
    files,
    ingest_status,
    integrity,
    mirror,
    operations,
    pausing,
    processes,
    providers,
    routes,
    send,
    service_config,
    spool,
    token,
    top,
    up,
    watching,
    workspaces,
)
from relayfile.errors import SettingError, StartRefused, WorkspaceNotFound

EXIT_FAILED = 1
EXIT_REFUSED = 2
STARTING = {"demo", "up", "store", "ingest", "syncd"}

app = typer.Typer(
    name="relayfile",
    help="Webhooks in, files out: a durable, sharded store of files with mirrors on ordinary disks.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

COMMANDS: tuple[tuple[str, Callable[..., None]], ...] = (
    ("demo", demo.demo),
    ("up", up.up),
    ("send", send.send),
    ("ls", files.ls),
    ("cat", files.cat),
    ("write", files.write),
    ("rm", files.rm),
    ("mv", files.mv),
    ("query", files.query),
    ("export", exporting.export),
    ("watch", watching.watch),
    ("top", top.top),
    ("status", ingest_status.status),
    ("rejected", ingest_status.rejected),
    ("pause", pausing.pause),
    ("resume", pausing.resume),
    ("token", token.token),
    ("address", address.address),
    ("config", config.config),
    ("service-config", service_config.service_config),
    ("audit", integrity.audit),
    ("scrub", integrity.scrub),
    ("backup", copies.backup),
    ("restore", copies.restore),
    ("store", processes.store),
    ("ingest", processes.ingest),
    ("syncd", processes.syncd),
)
for _name, _command in COMMANDS:
    app.command(_name)(_command)
app.add_typer(mirror.app, name="mirror")
app.add_typer(workspaces.app, name="workspaces")
app.add_typer(operations.app, name="ops")
app.add_typer(spool.app, name="spool")
app.add_typer(providers.app, name="providers")
app.add_typer(routes.app, name="routes")
app.add_typer(dead_letters.app, name="dead-letters")


@app.callback(invoke_without_command=True)
def _relayfile(version: bool = typer.Option(False, "--version", help="Print the version and exit.")) -> None:
    if version:
        print(f"relayfile {__version__}")
        raise typer.Exit


def main() -> None:
    """Run a command; an error of ours, or of a peer, is one line on standard error."""
    if wrong := [word for word in sys.argv[1:] if not _is_text(word)]:
        print(f"relayfile: the argument {wrong[0]!r} is not UTF-8", file=sys.stderr)
        sys.exit(EXIT_REFUSED)
    try:
        app()
    except OSError as failed:
        # A file or directory that was named: those of a running system have errors of ours.
        if failed.filename is None or sys.argv[1] in STARTING:
            raise
        print(f"relayfile: {failed.filename}: {failed.strerror}", file=sys.stderr)
        sys.exit(EXIT_FAILED)
    except Exception as raised:
        from relayfile.status import leading_error

        error = leading_error(raised)
        if error is None:
            raise
        # Who only asked has started nothing.
        asked = isinstance(error, StartRefused) and sys.argv[1] not in STARTING
        print(f"relayfile: {str(error).removeprefix('Refused to start: ') if asked else error}", file=sys.stderr)
        if isinstance(error, WorkspaceNotFound):
            print(f"`relayfile workspaces create {error.workspace}` makes it.", file=sys.stderr)
        sys.exit(EXIT_REFUSED if isinstance(error, SettingError | StartRefused) else EXIT_FAILED)


def _is_text(word: str) -> bool:
    """Whether UTF-8 can write it: the shell hands on any bytes."""
    try:
        word.encode()
    except UnicodeEncodeError:
        return False
    return True
