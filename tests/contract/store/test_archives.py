"""ExportTree as one stream of bytes, over gRPC on a real engine, and `relayfile export` on top of it."""

import asyncio
import base64
import io
import json
import os
import sys
import tarfile
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path

import grpc.aio
import pytest

from relayfile import errors
from relayfile.status import from_rpc_error
from relayfile.v1 import file_pb2, file_pb2_grpc
from tests.support.store_node import LIMITS, TestNode, started_nodes

W = "acme"
TAR = file_pb2.EXPORT_FORMAT_TAR
LINES = file_pb2.EXPORT_FORMAT_JSON_LINES
LARGE = bytes(range(256)) * 10_001  # 2.5 MB: chunks that are no multiple of three bytes, nor of a block
LONG_NAME = "/" + "/".join(["d" * 90] * 4) + "/ö.json"
FILES = {
    "/empty": b"",
    "/github/large.bin": LARGE,
    LONG_NAME: b"long",
    "/-rf": b"a name that looks like an option",
    "/ä/ö.json": b"{}",
    **{f"/github/issues/{number:04d}.json": b"%d" % number * 300 for number in range(1_500)},
}


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[TestNode]:
    async with started_nodes(tmp_path) as nodes:
        await nodes[0].writer.create_workspace(W)
        await nodes[0].writer.put(W, FILES)
        yield nodes[0]


async def exported(
    node: TestNode, *messages: file_pb2.ExportTreeRequest, **start: object
) -> list[file_pb2.ExportTreeResponse]:
    asked = file_pb2.ExportStart(workspace_id=W, **start)  # type: ignore[arg-type]
    first = file_pb2.ExportTreeRequest(start=asked, have_complete=not messages)
    call = node.client.files.ExportTree(iter((first, *messages)), metadata=node.client.metadata)
    return [answer async for answer in call]


def bytes_of(answers: list[file_pb2.ExportTreeResponse]) -> bytes:
    assert all(len(answer.chunk.data) <= 1 << 20 for answer in answers)
    assert not any(answer.files for answer in answers)
    pieces = [answer.chunk for answer in answers if answer.chunk.data]
    assert [piece.last for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    return b"".join(piece.data for piece in pieces)


def extracted(data: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
        members = {info.name: tar.extractfile(info) for info in tar}
        return {"/" + name: file.read() for name, file in members.items() if file is not None}


async def test_a_tar_holds_every_file_below_the_directory(node: TestNode) -> None:
    answers = await exported(node, format=TAR)
    assert extracted(bytes_of(answers)) == FILES
    end = answers[-1].end
    assert (end.file_count, end.total_bytes) == (len(FILES), sum(map(len, FILES.values())))
    assert answers[0].totals == end.totals
    below = extracted(bytes_of(await exported(node, format=TAR, path="/github")))
    assert below == {path: content for path, content in FILES.items() if path.startswith("/github/")}


async def test_what_tar_says_of_a_file(node: TestNode) -> None:
    data = bytes_of(await exported(node, format=TAR, path="/github/large.bin"))
    assert len(data) % 512 == 0
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        [info] = tar.getmembers()
    assert (info.name, info.size, info.mode, info.isreg()) == ("github/large.bin", len(LARGE), 0o644, True)
    assert info.mtime > 1_600_000_000


async def test_json_lines_hold_metadata_and_content(node: TestNode) -> None:
    lines = bytes_of(await exported(node, format=LINES)).splitlines()
    files = {line["path"]: line for line in map(json.loads, lines)}
    assert [json.loads(line)["path"] for line in lines] == sorted(FILES)
    assert {path: base64.b64decode(line["content"]) for path, line in files.items()} == FILES
    for path, content in FILES.items():
        assert files[path]["content_sha256"] == sha256(content).hexdigest()
        assert files[path]["size_bytes"] == len(content)
    issue = files["/github/issues/0007.json"]
    assert (issue["provider"], issue["origin"], issue["modify_time"][-1]) == ("github", "provider", "Z")


@pytest.mark.parametrize("packing", [TAR, LINES])
async def test_nothing_to_export_is_an_empty_archive(node: TestNode, packing: file_pb2.ExportFormat.ValueType) -> None:
    answers = await exported(node, format=packing, path="/nothing")
    data = b"".join(answer.chunk.data for answer in answers)
    assert extracted(data) == {} if packing == TAR else data == b""
    assert answers[-1].end.file_count == 0


@pytest.mark.parametrize(
    ("start", "messages", "field"),
    [
        ({"format": 9}, (), "start.format"),
        ({"format": TAR}, (file_pb2.ExportTreeRequest(have_sha256=bytes(32), have_complete=True),), "have_sha256"),
    ],
)
async def test_what_an_archive_cannot_be_asked_for(
    node: TestNode, start: dict[str, object], messages: tuple[file_pb2.ExportTreeRequest, ...], field: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await exported(node, *messages, **start)
    refusal = from_rpc_error(raised.value)
    assert isinstance(refusal, errors.InvalidArgument)
    assert [violation.field for violation in refusal.violations] == [field]


async def test_only_so_many_exports_run_at_once(node: TestNode) -> None:
    async def questions_without_end() -> AsyncIterator[file_pb2.ExportTreeRequest]:
        yield file_pb2.ExportTreeRequest(start=file_pb2.ExportStart(workspace_id=W, format=TAR))
        await asyncio.Event().wait()

    def unread() -> grpc.aio.StreamStreamCall[file_pb2.ExportTreeRequest, file_pb2.ExportTreeResponse]:
        return files.ExportTree(questions_without_end(), metadata=node.client.metadata)

    # A window that does not grow with what the machine can carry: whoever reads nothing holds its export up.
    async with grpc.aio.insecure_channel(node.address, options=(("grpc.http2.bdp_probe", 0),)) as narrow:
        files = file_pb2_grpc.FileServiceStub(narrow)
        calls = [unread() for _ in range(LIMITS.exports_concurrent_max)]
        refusal: errors.RelayfileError | None = None
        async with asyncio.timeout(10):
            while refusal is None:
                try:
                    await exported(node, format=TAR)
                except grpc.aio.AioRpcError as error:
                    refusal = from_rpc_error(error)
                # One of them may have been refused, beside the one that was read: it asks again.
                calls = [unread() if call.done() else call for call in calls]
        assert isinstance(refusal, errors.ExportRefused)
        for call in calls:
            call.cancel()


class TestCommand:
    async def test_into_a_file_that_appears_when_it_is_whole(self, node: TestNode, tmp_path: Path) -> None:
        target = tmp_path / "acme.tar"
        code, out, told = await run(node, "export", W, "--output", str(target))
        assert (code, out) == (0, b""), told
        assert f"{len(FILES)} files" in told
        assert extracted(target.read_bytes()) == FILES
        assert not list(tmp_path.glob("*.partial"))
        code, _, told = await run(node, "export", W, "--output", str(target))
        assert code == 2
        assert "--force" in told

    async def test_lines_to_standard_output(self, node: TestNode) -> None:
        code, out, told = await run(node, "export", W, "/github/issues", "--format", "jsonl")
        assert code == 0, told
        assert len(out.splitlines()) == 1_500

    async def test_a_failed_export_leaves_no_file(self, node: TestNode, tmp_path: Path) -> None:
        code, _, told = await run(node, "export", "nobody", "--output", str(tmp_path / "x.tar"))
        assert code == 1
        assert "nobody" in told
        assert not list(tmp_path.glob("x.tar*"))


async def run(node: TestNode, *arguments: str) -> tuple[int | None, bytes, str]:
    token = dict(node.client.metadata)["authorization"].removeprefix("Bearer ")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "relayfile", *arguments,
        env={**os.environ, "RELAYFILE_STORE": node.address, "RELAYFILE_TOKEN": token},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, told = await process.communicate()
    return process.returncode, out, told.decode()
