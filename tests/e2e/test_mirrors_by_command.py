"""docs/mirrors.md, pasted as it stands, and what the commands about mirrors say to programs."""

import asyncio
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from relayfile.local.system import LocalSystem
from tests.support.client import Client
from tests.support.command import relayfile

pytestmark = pytest.mark.asyncio(loop_scope="session")
DOCUMENT = Path(__file__).parents[2] / "docs" / "mirrors.md"


@pytest.mark.full
@pytest.mark.timeout(240)  # thirty commands, each a process of its own
async def test_the_page_works_when_pasted(system: LocalSystem, client: Client, tmp_path: Path) -> None:
    script = "".join(re.findall(r"^```sh run\n(.*?)^```$", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL))
    bin_directory = tmp_path / "bin"
    bin_directory.mkdir()
    (bin_directory / "relayfile").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m relayfile "$@"\n')
    (bin_directory / "relayfile").chmod(0o755)
    environment = {
        "PATH": f"{bin_directory}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "RELAYFILE_STORE": client.node_addresses[0],
        "RELAYFILE_SYNCD": client.syncd_address,
        "RELAYFILE_TOKEN": client.token,
    }
    (tmp_path / "home").mkdir()
    process = await asyncio.create_subprocess_exec(
        *("bash", "-eux", "-c", script),
        cwd=tmp_path / "home",
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        out, _ = await asyncio.wait_for(process.communicate(), 200)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    said = out.decode()
    assert process.returncode == 0, said
    for expected in (
        r"^1 files written \(14 bytes\) in .* revision 1; exact$",
        r"/home/mirror mirrors handbook as \w+, following$",
        r"^  revision 1 of 1; exact$",
        r"^revision 2 is on disk; ",
        r"^exact at revision 2: 0 differ, 0 listed, 0 changed on disk; ",
        r"^exact at revision 2: .* 2 read and hashed again; ",
        r" FILE_IS_DIRECTORY +/notes/later\.md ",
        r"^not now$",
        r"files? .* would be deleted in the store \(over half\), since ",
        r"; with --restore the files come back$",
        r"/home/mirror goes on$",
        r"^page 20$",
        r" overwritten +15 +notes/today\.md$",
        r"^restored/notes/today\.md is back$",
        r"^call them back$",
        r"^/notes/plan\.md  changed here and there, ",
        r"^  theirs: 12 bytes, notes/plan\.md, revision 5, before 4$",
        r"^1 ended with your version, 0 still open$",
        r"^edits: 1 arrived, 0 not taken; revision \d+$",
        r"^call Ada and Bob$",
        r"is no mirror any more; its files stay$",
        r"^today\.md$",
    ):
        assert re.search(expected, said, re.MULTILINE), (expected, said)


@pytest.mark.full
@pytest.mark.timeout(180)
async def test_programs_read_json_and_exit_codes(
    system: LocalSystem, client: Client, workspace: str, tmp_path: Path
) -> None:
    await client.create_workspace(workspace)
    await relayfile(system, client, "write", workspace, "/a/b", stdin=b"1")
    await relayfile(system, client, "write", workspace, "/c/d", stdin=b"2")
    directory = str(tmp_path / "mirror")

    async def said(*arguments: str, code: int = 0) -> list[dict[str, object]]:
        out = await relayfile(system, client, "mirror", *arguments, "--json", code=code)
        return [json.loads(line) for line in out.lines]

    (made,) = await said("add", workspace, directory, "--path", "/a", "--read-only")
    assert (made["remote_paths"], made["read_only"]) == (["/a"], True)
    (pulled,) = await said("pull", directory)
    assert pulled["revision"] == "2"
    (waited,) = await said("wait", directory, "--revision", "2")
    assert waited["file_counts"]["materialised_count"] == "1"  # type: ignore[index]  # a JSON object
    late = await relayfile(system, client, "mirror", "wait", directory, "--revision", "99", "--timeout", "0.3", code=1)
    assert "deadline" in late.error
    (audited,) = await said("audit", directory)
    assert audited["audit"]["equal"] is True  # type: ignore[index]  # a JSON object
    assert await said("problems", directory) == []
    assert await said("trash", directory) == []
    assert await said("approve", directory) == [{}]
    answer = await said("trash", directory, "--restore", "none", code=1)
    assert answer[0]["failure"]["reason"] == "TRASH_NOT_FOUND"  # type: ignore[index]  # a JSON object
    refused = await relayfile(system, client, "mirror", "approve", directory, "deletes-none", code=1)
    assert "deletes-none" in refused.error
    assert [each["directory"] for each in await said("status", directory)] == [directory]
    plain = await relayfile(system, client, "mirror", "status")
    assert re.search(rf"^{re.escape(directory)} +{workspace} +stopped ", plain.out.decode(), re.MULTILINE)
    within = await relayfile(system, client, "mirror", "rm", f"{directory}/a", code=2)
    assert "is only a part of the mirror" in " ".join(within.error.split())
    (gone,) = await said("rm", directory)
    assert gone == {"directory": directory, "unsent_edit_count": "0"}
    missing = await relayfile(system, client, "mirror", "status", directory, code=1)
    assert "There is no mirror" in missing.error


@pytest.mark.timeout(180)
async def test_conflicts_are_ended_by_command_and_edits_are_waited_for(
    system: LocalSystem, client: Client, workspace: str, tmp_path: Path
) -> None:
    await client.create_workspace(workspace)
    names = ("a", "b", "c")
    root = tmp_path / "mirror"
    directory = str(root)

    async def run(command: str, *arguments: str, code: int = 0) -> list[str]:
        return (await relayfile(system, client, "mirror", command, directory, *arguments, code=code)).lines

    async def conflicts(*arguments: str) -> list[dict[str, object]]:
        return [json.loads(line) for line in await run("conflicts", *arguments, "--json")]

    for name in names:
        await client.write(workspace, f"/notes/{name}", b"first")
    await relayfile(system, client, "mirror", "add", workspace, directory)  # not following, so that both sides change
    assert await run("conflicts") == ["no conflicts"]
    for name in names:
        (root / "notes" / name).write_text(f"mine {name}")
        await client.write(workspace, f"/notes/{name}", b"theirs")
    assert (await run("flush", code=1))[0] == "edits: 0 arrived, 3 not taken"

    found = await conflicts()
    assert [each["remote_path"] for each in found] == [f"/notes/{name}" for name in names]
    head, mine, theirs, _, _ = await run("conflicts", "--path", "/notes/a")
    assert head.startswith("/notes/a  changed here and there, ")
    assert mine == f"  mine:   6 bytes, {found[0]['kept_path']}"
    assert theirs == "  theirs: 6 bytes, notes/a, revision 4, before 1"
    assert (root / str(found[0]["kept_path"])).read_text() == "mine a"

    (ended,) = await conflicts("--take", "mine", "--id", str(found[0]["conflict_id"]))
    assert (ended["resolved_count"], ended["open_count"]) == ("1", "2")
    await client.write(workspace, "/notes/c", b"theirs, later")
    await run("pull")
    changed = await run("conflicts", "--take", "mine", "--all", code=1)
    assert changed[0] == "not ended, a side has changed:"
    assert changed[-2] == "1 ended with your version, 1 still open"
    assert await run("conflicts", "--take", "theirs", "--path", "/notes/c") == [
        "1 ended with the store's version, 0 still open"
    ]
    # The one that was ended before the pull went with it.
    assert (await run("flush"))[0].startswith("edits: 1 arrived, 0 not taken; revision ")
    contents = {"/notes/a": b"mine a", "/notes/b": b"mine b", "/notes/c": b"theirs, later"}
    assert await client.contents(workspace) == contents
    assert {f"/notes/{name}": (root / "notes" / name).read_bytes() for name in names} == contents


async def test_watching_shows_what_changes_until_it_is_interrupted(
    system: LocalSystem, client: Client, workspace: str, tmp_path: Path
) -> None:
    await client.create_workspace(workspace)
    directory = str(tmp_path / "mirror")
    await relayfile(system, client, "mirror", "add", workspace, directory, "--follow")
    watching = asyncio.ensure_future(relayfile(system, client, "mirror", "status", directory, "--watch"))
    await asyncio.sleep(1.5)  # that it watches is seen by nobody
    await relayfile(system, client, "write", workspace, "/a", stdin=b"1")
    await relayfile(system, client, "mirror", "wait", directory)
    await asyncio.sleep(1.0)  # longer than between two of its messages
    await relayfile(system, client, "mirror", "rm", directory)
    lines = (await watching).lines
    assert lines[0].startswith(f"{directory}  {workspace}  following  0/0  0")
    assert any(line.startswith(f"{directory}  {workspace}  following  1/1  1") for line in lines)
    assert lines[-1].endswith("forgotten")
