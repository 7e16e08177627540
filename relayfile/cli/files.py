"""`relayfile ls | cat | write | rm | mv | query`: the files of a workspace, as one would expect of such names."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from relayfile.cli.running_system import DATA_DIR, JSON_LINES, with_client
from relayfile.cli.shown import value_json
from relayfile.cli.table import table

if TYPE_CHECKING:
    from relayfile.client import Client, Directory, File

WORKSPACE = typer.Argument(help="The workspace.")
PATH = typer.Argument(help="The file, such as /notes/today.md.")
IF_REVISION = typer.Option(None, "--if-revision", min=1, help="Only when the file is at this revision.")
DEPTH_MAX = 2**31 - 1
_LONG = ("REVISION", "BYTES", "CHANGED", "PROVIDER", "PATH")


def ls(
    workspace: str = WORKSPACE,
    path: str = typer.Argument("/", help="The directory, or a file."),
    depth: int = typer.Option(1, "--depth", min=1, max=DEPTH_MAX, help="So many levels down."),
    recursive: bool = typer.Option(False, "--recursive", "-r", help="Every file below it, and no directories."),
    long: bool = typer.Option(False, "--long", "-l", help="With revision, size, time and provider."),
    json_lines: bool = JSON_LINES,
    data_dir: Path = DATA_DIR,
) -> None:
    """List a directory; the name of a directory ends in `/`. Exit code 1 when nothing is there."""

    async def work(client: "Client") -> None:
        from relayfile.errors import FileNotFound

        rows, found = [], path.strip("/") == ""
        async for entry in client.workspace(workspace).files.tree(path, depth=0 if recursive else depth):
            found = True
            if json_lines:
                print(value_json(entry))
            elif long:
                rows.append(_row(entry))
            else:
                print(_name(entry))
        if long and not json_lines:
            print(table(_LONG, rows))
        if not found:  # a directory is there while it has files
            raise FileNotFound(path=path)

    with_client(data_dir, work)


def cat(
    workspace: str = WORKSPACE,
    paths: list[str] = typer.Argument(metavar="PATH...", help="The files."),
    data_dir: Path = DATA_DIR,
) -> None:
    """Write files' bytes to standard output, one after the other. Exit code 1 when one is not there."""

    async def work(client: "Client") -> None:
        from relayfile.errors import FileNotFound

        missing = False
        for path in paths:
            try:
                content = await client.workspace(workspace).files.read(path)
            except FileNotFound as error:
                print(f"relayfile: {error}", file=sys.stderr)
                missing = True
                continue
            sys.stdout.buffer.write(content.data)
        sys.stdout.buffer.flush()
        if missing:
            raise typer.Exit(1)

    with_client(data_dir, work)


def write(
    workspace: str = WORKSPACE,
    path: str = PATH,
    source: Path | None = typer.Argument(None, help="What to write; standard input without it.", dir_okay=False),
    if_revision: int | None = IF_REVISION,
    force: bool = typer.Option(False, "--force", help="Replace whatever is there."),
    content_type: str = typer.Option("", "--content-type", help="Media type; else it is kept, or guessed."),
    property_values: list[str] = typer.Option((), "--property", metavar="NAME=VALUE", help="Sets its properties."),
    permissions: list[str] = typer.Option((), "--permission", metavar="RULE", help="Sets its rules, or tags."),
    json_lines: bool = JSON_LINES,
    data_dir: Path = DATA_DIR,
) -> None:
    """Make a file. One that exists is replaced only with --if-revision or --force."""
    _tell_of_slash(path, source.name if source is not None else "NAME")
    content = sys.stdin.buffer.read() if source is None else source.read_bytes()
    properties = _pairs(property_values)

    async def work(client: "Client") -> None:
        from relayfile.client import Semantics

        semantics = Semantics(properties=properties, permissions=tuple(permissions))
        written = await client.workspace(workspace).files.write(
            path,
            content,
            if_revision=None if force else if_revision or 0,
            force=force,
            content_type=content_type,
            semantics=semantics if semantics != Semantics() else None,
        )
        if json_lines:
            print(value_json(written))
            return
        what = f"is at revision {written.file.revision}" if written.changed else "was like that before"
        print(f"{written.file.path} {what}{_carried(written.operation_id)}")

    with_client(data_dir, work)


def rm(
    workspace: str = WORKSPACE,
    paths: list[str] = typer.Argument(metavar="PATH...", help="The files."),
    if_revision: int | None = IF_REVISION,
    data_dir: Path = DATA_DIR,
) -> None:
    """Delete files. Exit code 1 when one could not be."""
    if if_revision is not None and len(paths) > 1:
        raise typer.BadParameter("--if-revision is for one file")

    async def work(client: "Client") -> None:
        from relayfile.client import Delete

        items = [Delete(path, if_revision) for path in paths]
        results = await client.workspace(workspace).files.write_many(items)
        failed = [result.error for result in results if result.error is not None]
        for error in failed:
            print(f"relayfile: {error}", file=sys.stderr)
        if failed:
            raise typer.Exit(1)

    with_client(data_dir, work)


def mv(
    workspace: str = WORKSPACE,
    path: str = PATH,
    to_path: str = typer.Argument(help="Its new path, where nothing is."),
    if_revision: int | None = IF_REVISION,
    data_dir: Path = DATA_DIR,
) -> None:
    """Move a file."""
    _tell_of_slash(to_path, path.rstrip("/").rpartition("/")[2])

    async def work(client: "Client") -> None:
        moved = await client.workspace(workspace).files.move(
            path, to_path, if_revision=if_revision, force=if_revision is None
        )
        print(f"{moved.file.path} is at revision {moved.file.revision}{_carried(moved.operation_id)}")

    with_client(data_dir, work)


def query(
    workspace: str = WORKSPACE,
    prefix: str = typer.Option("", "--prefix", help="Below this directory."),
    provider: str = typer.Option("", "--provider", help="Of this provider."),
    relation: str = typer.Option("", "--relation", help="With this relation."),
    permission: str = typer.Option("", "--permission", help="With this permission rule."),
    comment: str = typer.Option("", "--comment", help="With this comment."),
    property_values: list[str] = typer.Option((), "--property", metavar="NAME=VALUE", help="With this property."),
    long: bool = typer.Option(False, "--long", "-l", help="With revision, size, time and provider."),
    json_lines: bool = JSON_LINES,
    data_dir: Path = DATA_DIR,
) -> None:
    """Find files for which everything that is said holds."""
    properties = _pairs(property_values)

    async def work(client: "Client") -> None:
        rows = []
        async for file in client.workspace(workspace).files.query(
            path_prefix=prefix,
            provider=provider,
            relation=relation,
            permission=permission,
            comment=comment,
            properties=properties,
        ):
            if json_lines:
                print(value_json(file))
            elif long:
                rows.append(_row(file))
            else:
                print(file.path)
        if long and not json_lines:
            print(table(_LONG, rows))

    with_client(data_dir, work)


def _name(entry: "File | Directory") -> str:
    from relayfile.client import Directory

    return f"{entry.path}/" if isinstance(entry, Directory) else entry.path


def _row(entry: "File | Directory") -> tuple[object, ...]:
    from relayfile.client import Directory

    if isinstance(entry, Directory):
        return entry.revision, entry.totals.total_bytes, "", f"{entry.totals.file_count} files", _name(entry)
    changed = entry.modify_time.strftime("%Y-%m-%d %H:%M:%SZ")
    return entry.revision, entry.size_bytes, changed, entry.provider or "-", entry.path


def _tell_of_slash(path: str, name: str) -> None:
    """One slash at the end is no part of a path; who wrote it may have meant a directory."""
    if path.endswith("/") and path.strip("/"):
        named = path.removesuffix("/")
        print(f"relayfile: {path} is the file {named}; for a file in that directory say {path}{name}", file=sys.stderr)


def _pairs(values: Sequence[str]) -> dict[str, str]:
    pairs = [value.partition("=") for value in values]
    wrong = [name for name, sign, _ in pairs if not sign or not name]
    if wrong:
        raise typer.BadParameter(f"--property is NAME=VALUE, not {wrong[0]!r}")
    return {name: value for name, _, value in pairs}


def _carried(operation_id: str) -> str:
    return f"; operation {operation_id} carries it to its provider" if operation_id else ""
