"""Files by the command line and by the Python client's documented examples, through real processes."""

import ast
import asyncio
import json
import re
from collections.abc import Awaitable
from pathlib import Path

import pytest

from relayfile import client as sdk
from relayfile.local.system import LocalSystem
from tests.support.client import Client
from tests.support.command import relayfile

pytestmark = pytest.mark.asyncio(loop_scope="session")
DOCUMENT = Path(__file__).parents[2] / "docs" / "client.md"


async def test_a_file_is_written_shown_moved_and_removed(
    system: LocalSystem, client: Client, workspace: str, tmp_path: Path
) -> None:
    await client.create_workspace(workspace)
    source = tmp_path / "today.md"
    source.write_bytes(b"# Today\n\xff")
    said = await relayfile(system, client, "write", workspace, "/notes/today.md", str(source))
    assert said.lines == ["/notes/today.md is at revision 1"]
    said = await relayfile(system, client, "write", workspace, "/notes/today.md", str(source))
    assert said.lines == ["/notes/today.md was like that before"]
    said = await relayfile(system, client, "write", workspace, "/notes/today.md", stdin=b"other", code=1)
    assert "revision 1" in said.error, "it exists, and nobody said that it may be replaced"
    assert (await relayfile(system, client, "cat", workspace, "/notes/today.md")).out == b"# Today\n\xff"
    options = ("--if-revision", "1", "--property", "state=open")
    await relayfile(system, client, "write", workspace, "/notes/today.md", *options, stdin=b"# Later\n")
    (line,) = (await relayfile(system, client, "ls", workspace, "-r", "--json")).lines
    assert json.loads(line)["path"] == "/notes/today.md"
    assert json.loads(line)["semantics"]["properties"] == {"state": "open"}
    found = await relayfile(system, client, "query", workspace, "--property", "state=open", "--prefix", "/notes")
    assert found.lines == ["/notes/today.md"]
    moved = await relayfile(system, client, "mv", workspace, "/notes/today.md", "/archive/today.md")
    assert moved.lines == ["/archive/today.md is at revision 4"]
    assert (await relayfile(system, client, "ls", workspace)).lines == ["/archive/"]
    assert (await relayfile(system, client, "ls", workspace, "-r")).lines == ["/archive/today.md"]
    long = (await relayfile(system, client, "ls", workspace, "/archive", "-l")).lines
    assert re.fullmatch(r"REVISION +BYTES +CHANGED +PROVIDER +PATH", long[0])
    assert re.fullmatch(r"4 +8 +20\d\d-.*Z +- +/archive/today\.md", long[1])
    watched = await relayfile(system, client, "watch", workspace, "--after", "0", "--count", "4")
    assert [line.split()[0::2] for line in watched.lines] == [
        ["1", "file.created", "/notes/today.md"],
        ["2", "file.updated", "/notes/today.md"],
        ["3", "file.deleted", "/notes/today.md", "/archive/today.md"],
        ["4", "file.created", "/archive/today.md", "/notes/today.md"],
    ]
    said = await relayfile(system, client, "cat", workspace, "/nowhere", "/archive/today.md", code=1)
    assert (said.out, "/nowhere" in said.error) == (b"# Later\n", True)
    said = await relayfile(system, client, "ls", workspace, "/nowhere", code=1)
    assert "/nowhere" in said.error, "an empty list would say that there is an empty directory"
    for arguments in (["write", workspace, "/x", "no-such-source"], ["export", workspace, "-o", "/no-such-place/x"]):
        said = await relayfile(system, client, *arguments, code=1)
        assert re.fullmatch(r"relayfile: .*no-such.*: No such file or directory\n", said.error)
    rule = ("--permission", "agent:alice")
    await relayfile(system, client, "write", workspace, "/archive/.relayfile.acl", *rule, stdin=b"")
    said = await relayfile(system, client, "cat", workspace, "/archive/today.md", code=1)
    assert "/archive/today.md" in said.error, "the rules of the directory hold for everybody else"
    await relayfile(system, client, "rm", workspace, "/archive/.relayfile.acl")
    said = await relayfile(system, client, "rm", workspace, "/archive/today.md", "/nowhere", code=1)
    assert "/nowhere" in said.error
    assert (await relayfile(system, client, "ls", workspace)).lines == []


async def test_commands_say_what_was_not_meant_or_is_not_there(
    system: LocalSystem, client: Client, workspace: str, tmp_path: Path
) -> None:
    await relayfile(system, client, "workspaces", "create", workspace, "--files-max", "3", "--bytes-max", "1MiB")
    for path in ("/notes/a", "/notes/z"):
        await relayfile(system, client, "write", workspace, path, stdin=b"a")
    said = await relayfile(system, client, "mv", workspace, "/notes/a", "/notes/", code=1)
    assert "for a file in that directory say /notes/a" in said.error
    said = await relayfile(system, client, "write", workspace, "/b/", stdin=b"b")
    assert said.lines == ["/b is at revision 3"]
    assert "/b/ is the file /b" in said.error
    said = await relayfile(system, client, "write", workspace, "/c", stdin=b"c", code=1)
    assert "3" in said.error, "its quota"
    output = tmp_path / "nothing.tar"
    for arguments in (["-o", str(output)], ["--format", "jsonl"]):
        said = await relayfile(system, client, "export", workspace, "/nowhere", *arguments, code=1)
        assert "There is no file '/nowhere'" in said.error
    assert not output.exists()
    await relayfile(system, client, "export", workspace, "/b", "-o", str(output))
    await relayfile(system, client, "workspaces", "delete", workspace, "--yes")
    said = await relayfile(system, client, "ls", workspace, code=1)
    assert "was deleted" in said.error
    assert "create" not in said.error


async def test_the_documented_examples_of_the_client(system: LocalSystem, client: Client, workspace: str) -> None:
    await client.create_workspace(workspace)
    blocks = re.findall(r"```python run\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert len(blocks) >= 4
    async with sdk.Client(client.node_addresses[0], client.token) as connected:
        names: dict[str, object] = {"client": connected, "notes": connected.workspace(workspace)}
        for block in blocks:
            code = compile(block, str(DOCUMENT), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            running = eval(code, names)
            assert isinstance(running, Awaitable)
            await asyncio.wait_for(running, 20)
