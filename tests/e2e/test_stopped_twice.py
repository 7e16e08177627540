"""SIGTERM during a start, twice, and kill -9 while a process drains: the code that is documented, and nothing lost."""

import asyncio
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from relayfile.lifecycle import EXIT_NOT_EMPTY, EXIT_OK
from relayfile.local.delivery import Sender
from relayfile.local.process import LocalProcess
from relayfile.local.system import LocalSystem
from relayfile.v1 import mirror_pb2
from tests.support.client import Client, client_of
from tests.support.system import started_system
from tests.support.webhooks import Issue

pytestmark = [pytest.mark.full, pytest.mark.asyncio(loop_scope="session")]

W = "acme"
PROCESSES = ("store-0", "ingest", "syncd")
TWICE = (128 + signal.SIGINT, 128 + signal.SIGTERM)
"""Of a process that one of them ended, as the second."""
BUDGET_S = 40.0
"""The usual grace is 20 s, and each closing phase after it has 10 s."""
DRAINING = {"RELAYFILE_IDLE_GRACE": "10m", "RELAYFILE_SHUTDOWN_GRACE": "10m"}
"""The drain of ingest lasts as long as a kept connection is quiet: it does not end before it is killed."""


class Sent:
    """Webhooks of a sender that keeps its connections, and the files that the acknowledged ones make."""

    def __init__(self, system: LocalSystem, client: Client) -> None:
        self.system = system
        self.client = client
        self.acknowledged: list[Issue] = []
        self._secret = system.layout.webhook_secret(W, "github")

    async def send(self, sender: Sender, count: int = 1) -> str:
        """The last answer's `connection` header."""
        said = ""
        for _ in range(count):
            number = len(self.acknowledged) + 1
            issue = Issue(number, f"issue {number}", action="opened")
            answer = await sender.post(issue.delivery(W, self._secret, f"delivery-{number}"))
            assert answer.status == 200, answer
            self.acknowledged.append(issue)
            said = answer.headers.get("connection", "")
        return said

    async def check(self) -> None:
        """Each acknowledged webhook is in the store, applied once."""
        counts = await self.client.settled(W, len(self.acknowledged), timeout_s=40)
        assert counts["applied"] == len(self.acknowledged)
        assert set(await self.client.contents(W)) == {issue.path for issue in self.acknowledged}
        assert len(await self.client.all_events(W)) == len(self.acknowledged)


@asynccontextmanager
async def served(root: Path) -> AsyncIterator[tuple[LocalSystem, Sent, Path]]:
    """A system with a mirror that follows, and a sender's account."""
    async with started_system(root / "system", nodes=1, overrides=DRAINING) as system, client_of(system) as client:
        await client.create_workspace(W)
        mirror = root / "mirror"
        request = mirror_pb2.CreateMirrorRequest(workspace_id=W, directory=str(mirror), follow=True)
        await client.mirrors().CreateMirror(request, metadata=client.metadata, timeout=30)
        yield system, Sent(system, client), mirror


def sender_to(system: LocalSystem) -> Sender:
    return Sender(f"http://127.0.0.1:{system.ports.ingest_http}")


def session(leader: int) -> list[int]:
    """The processes of a session: whatever a process has started, and it itself."""
    found = []
    for each in Path("/proc").iterdir():
        if each.name.isdigit():
            try:
                fields = (each / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue  # it has ended meanwhile
            if int(fields[3]) == leader:
                found.append(int(each.name))
    return found


async def ended(process: LocalProcess) -> int:
    """The exit code of a process, which leaves no other behind."""
    async with asyncio.timeout(BUDGET_S):
        code = await process.exit_code()
    assert session(process.pid) == []
    return code


def signal_twice(process: LocalProcess) -> None:
    """Both are there when the process looks; which of them is first is not said."""
    for number in (signal.SIGSTOP, signal.SIGINT, signal.SIGTERM, signal.SIGCONT):
        process.signal(number)


async def mirrored(mirror: Path, issues: Sequence[Issue]) -> None:
    async with asyncio.timeout(60):
        while not all((mirror / issue.path[1:]).exists() for issue in issues):  # noqa: ASYNC110 - another process's work
            await asyncio.sleep(0.05)


async def test_signals_during_a_start_and_two_at_once(tmp_path: Path) -> None:
    async with served(tmp_path) as (system, sent, mirror):
        for name in PROCESSES:
            process = system.processes[name]
            async with sender_to(system) as sender:
                await sent.send(sender, 5)
            signal_twice(process)
            # What ingest had acknowledged and not sent yet is in its spool: it says so.
            assert await ended(process) in ((*TWICE, EXIT_NOT_EMPTY) if name == "ingest" else TWICE)
            assert await stopped_while_it_starts(process) == EXIT_OK
            await system.start_one(name)
        async with sender_to(system) as sender:
            await sent.send(sender, 5)
        await sent.check()
        await mirrored(mirror, sent.acknowledged)


async def test_a_start_that_is_stopped_keeps_a_spool_that_nobody_takes(tmp_path: Path) -> None:
    async with served(tmp_path) as (system, sent, _):
        ingest = system.processes["ingest"]
        await system.processes["store-0"].kill()
        async with sender_to(system) as sender:
            await sent.send(sender, 20)
        signal_twice(ingest)
        assert await ended(ingest) == EXIT_NOT_EMPTY
        starting = asyncio.ensure_future(ingest.start())
        await catches(ingest, signal.SIGTERM)
        signal_twice(ingest)
        assert await ended(ingest) == EXIT_NOT_EMPTY
        await asyncio.gather(starting, return_exceptions=True)
        for name in ("store-0", "ingest"):
            await system.start_one(name)
        await sent.check()


async def test_kill_while_a_kept_connection_has_its_grace(tmp_path: Path) -> None:
    async with served(tmp_path) as (system, sent, mirror), AsyncExitStack() as stack:
        used, quiet = [await stack.enter_async_context(sender_to(system)) for _ in range(2)]
        ingest = system.processes["ingest"]
        for sender in (used, quiet):
            assert await sent.send(sender, 3) == ""
        ingest.signal(signal.SIGTERM)
        while await accepts(system):  # noqa: ASYNC110 - another process's work
            await asyncio.sleep(0.01)
        assert await sent.send(used) == "close"
        assert ingest.running, "the quiet connection has its grace"
        await ingest.kill()
        assert session(ingest.pid) == []
        for name in ("store-0", "syncd"):
            process = system.processes[name]
            process.signal(signal.SIGTERM)
            await process.kill()
            assert session(process.pid) == []
        for name in PROCESSES:
            await system.start_one(name)
        await sent.check()
        await mirrored(mirror, sent.acknowledged)


async def accepts(system: LocalSystem) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", system.ports.ingest_http)
    except ConnectionRefusedError:
        return False
    writer.close()
    return True


async def stopped_while_it_starts(process: LocalProcess) -> int:
    """The exit code of one that is told to stop as soon as it hears it."""
    starting = asyncio.ensure_future(process.start())
    await catches(process, signal.SIGTERM)
    process.signal(signal.SIGTERM)
    await asyncio.gather(starting, return_exceptions=True)  # it may have said its address before it ended, or not
    return await ended(process)


async def catches(process: LocalProcess, number: signal.Signals) -> None:
    """Until the process has a handler for a signal; before that it would end by it."""
    while not process.running:  # noqa: ASYNC110 - another task starts it
        await asyncio.sleep(0)
    while True:
        status = Path(f"/proc/{process.pid}/status").read_text()
        caught = next(line for line in status.splitlines() if line.startswith("SigCgt:"))
        if int(caught.split()[1], 16) >> (number - 1) & 1:
            return
        await asyncio.sleep(0.001)
