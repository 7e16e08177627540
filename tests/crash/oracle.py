"""The oracle: sends signed webhooks, and writes down each one before it is sent and after it is acknowledged.

A process of its own, so that no kill of the system takes its memory of what was promised: `python -m tests.crash.oracle
JSON`. It never stops asking: a connection that breaks is opened again, and every second delivery without an answer is
sent again under its own id. SIGTERM ends it when what is under way was answered or given up.
"""

import asyncio
import json
import random
import signal
import sys
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import uvloop

from relayfile.errors import RelayfileError
from relayfile.local.delivery import Sender
from tests.support.webhooks import Issue

HOT_SHARE = 0.1
ANSWER_TIMEOUT_S = 4.0
RETRY_PAUSE_S = 0.05
GAVE_UP = "R503"
"""An answer after which the delivery may have been accepted all the same: ingest does not wait for a slow disk."""
HOT_NUMBER_MAX = 1000
"""Issues up to this number are edited again and again; every other one is sent once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OracleLoad:
    """What to send and where to write it down."""

    url: str
    workspace: str
    secret: str
    log: str
    rate: float
    connections: int = 24
    seed: int = 1
    answer_timeout_s: float = ANSWER_TIMEOUT_S
    keeps_alive: bool = True
    """Off: each request opens a connection of its own, as through a balancer that keeps none to those behind it."""


@dataclass(frozen=True, slots=True)
class Sending:
    """One delivery: its id is the same on every attempt."""

    delivery_id: str
    issue: Issue


class Oracle:
    """Offers deliveries at a steady rate over its connections, and logs them."""

    def __init__(self, load: OracleLoad, log: TextIO) -> None:
        self._load = load
        self._log = log
        self._stopping = False
        self._random = random.Random(load.seed)
        self._due = time.monotonic()
        self._count = 0
        self._next_issue = HOT_NUMBER_MAX
        self._versions: dict[int, int] = {}

    def stop(self) -> None:
        self._stopping = True

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(self._load.connections):
                group.create_task(self._connection(number))

    async def _connection(self, number: int) -> None:
        async with Sender(self._load.url) as sender:
            while not self._stopping:
                if not await self._turn():
                    continue
                await self._deliver(sender, self._choose(number))

    async def _turn(self) -> bool:
        """Wait for this request's time. What could not be sent while the system was down is not made up for."""
        now = time.monotonic()
        self._due = max(self._due + 1 / self._load.rate, now - 0.05)
        if self._due > now:
            await asyncio.sleep(self._due - now)
        return not self._stopping

    def _choose(self, connection: int) -> Sending:
        self._count += 1
        delivery_id = f"{self._load.workspace}-{self._load.seed}-{self._count:07d}"
        if self._random.random() < HOT_SHARE:
            # A hot object belongs to one connection: its versions leave in order.
            version = self._versions[connection] = self._versions.get(connection, 0) + 1
            issue = Issue(connection + 1, f"version {version}", updated_us=(1_760_000_000 + version) * 1_000_000)
            return Sending(delivery_id, issue)
        self._next_issue += 1
        return Sending(delivery_id, Issue(self._next_issue, f"once {delivery_id}", action="opened"))

    async def _deliver(self, sender: Sender, sending: Sending) -> None:
        delivery = sending.issue.delivery(self._load.workspace, self._load.secret, sending.delivery_id)
        for attempt in range(100):
            self._write("S", sending, attempt)
            answered = False
            try:
                async with asyncio.timeout(self._load.answer_timeout_s):
                    answer = await sender.post(delivery)
                answered = True
                if not self._load.keeps_alive:
                    await sender.close()
                self._write("A" if answer.status == 200 else f"R{answer.status}", sending, attempt)
            except (OSError, RelayfileError, TimeoutError) as error:
                await sender.close()
                self._write("N", sending, attempt, repr(error))
            if answered or self._stopping or int(sending.delivery_id[-7:]) % 2:
                return
            await asyncio.sleep(RETRY_PAUSE_S)

    def _write(self, what: str, sending: Sending, attempt: int, why: str = "") -> None:
        entry = {"what": what, "id": sending.delivery_id, "attempt": attempt, "at": time.time()}
        if why:
            entry["why"] = why
        if what == "S" and attempt == 0:
            entry |= {"path": sending.issue.path, "content": sending.issue.content}
        self._log.write(json.dumps(entry) + "\n")


@dataclass(slots=True)
class Record:
    """What the oracle knows of one delivery."""

    path: str
    content: dict[str, object]
    attempts: int = 0
    acked: bool = False
    refused: int = 0
    """Attempts that were refused for good: what they brought is nowhere. A 503 leaves that open."""


@dataclass(slots=True)
class History:
    """The oracle's log, read back."""

    records: dict[str, Record] = field(default_factory=dict)
    sent_at: deque[float] = field(default_factory=deque)

    @property
    def acked(self) -> dict[str, Record]:
        return {name: record for name, record in self.records.items() if record.acked}

    @property
    def once(self) -> dict[str, Record]:
        """Deliveries of objects that got no other."""
        return {name: record for name, record in self.records.items() if not is_hot(record)}

    @property
    def hot_paths(self) -> set[str]:
        return {record.path for record in self.records.values() if is_hot(record)}

    def versions(self, path: str) -> list[Record]:
        """The deliveries of one object, in order of sending."""
        return [record for record in self.records.values() if record.path == path]


def is_hot(record: Record) -> bool:
    number = record.content["number"]
    assert isinstance(number, int)
    return number <= HOT_NUMBER_MAX


def read_history(log: Path) -> History:
    history = History()
    for entry in _entries(log):
        if entry["what"] == "S":
            if entry["attempt"] == 0:
                history.records[entry["id"]] = Record(entry["path"], entry["content"])
            history.records[entry["id"]].attempts += 1
            history.sent_at.append(entry["at"])
        elif entry["what"] == "A":
            history.records[entry["id"]].acked = True
        elif entry["what"].startswith("R") and entry["what"] != GAVE_UP:
            history.records[entry["id"]].refused += 1
    return history


def _entries(log: Path) -> Iterator[dict[str, Any]]:
    for line in log.read_text().splitlines():
        yield json.loads(line)


async def main(load: OracleLoad) -> None:
    with Path(load.log).open("w", buffering=1 << 16) as log:  # noqa: ASYNC230 - this process only sends and writes
        oracle = Oracle(load, log)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, oracle.stop)
        await oracle.run()


if __name__ == "__main__":
    uvloop.run(main(OracleLoad(**json.loads(sys.argv[1]))))
