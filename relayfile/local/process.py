"""One process of a local system, seen from outside: command, environment, address file, signals, log."""

import asyncio
import ctypes
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from relayfile.clock import Clock
from relayfile.errors import StartRefused
from relayfile.local.layout import Addresses, Layout

READY_TIMEOUT_S = 30.0
POLL_INTERVAL_S = 0.02
LOG_TAIL_LINES = 5
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class Command:
    """How a process is started: the subcommand of `relayfile` and the variables that it gets."""

    name: str
    """Names the process in files and logs, for example `store-0`."""
    subcommand: str
    environment: Mapping[str, str]


class LocalProcess:
    """Starts, watches and ends one process. A process that this object started never outlives its parent."""

    def __init__(self, command: Command, layout: Layout, clock: Clock) -> None:
        self.command = command
        self._layout = layout
        self._clock = clock
        self._process: asyncio.subprocess.Process | None = None

    @property
    def name(self) -> str:
        return self.command.name

    @property
    def pid(self) -> int:
        assert self._process is not None, "not started"
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def start(self) -> Addresses:
        """Start it and wait until it is ready.

        Raises `StartRefused` with the end of its log when it exits or is not ready within `READY_TIMEOUT_S`.
        """
        assert not self.running, f"{self.name} is running already"
        address_file = self._layout.address_file(self.name)
        address_file.unlink(missing_ok=True)
        with self._layout.log(self.name).open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "relayfile",
                self.command.subcommand,
                f"--end-with-parent={os.getpid()}",
                env={**self.command.environment, "RELAYFILE_ADDRESS_FILE": str(address_file)},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return await self._ready()

    async def _ready(self) -> Addresses:
        deadline = self._clock.monotonic() + READY_TIMEOUT_S
        while self._clock.monotonic() < deadline:
            if (addresses := self._layout.read_addresses(self.name)) is not None:
                return addresses
            if not self.running:
                break
            await asyncio.sleep(POLL_INTERVAL_S)
        state = "was not ready in time" if self.running else f"exited with {await self.exit_code()}"
        await self.kill()
        raise StartRefused(why=f"{self.name} {state}: {log_tail(self._layout.log(self.name))}")

    @property
    def was_started(self) -> bool:
        return self._process is not None

    async def stop(self, grace_s: float) -> int:
        """Ask it to drain and end; kill it when `grace_s` is over. Answers its exit code."""
        if self.running:
            self.signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(grace_s):
                    return await self.exit_code()
            except TimeoutError:
                await self.kill()
        return await self.exit_code()

    async def kill(self) -> None:
        """End it at once, as a crash would."""
        if self.running:
            self.signal(signal.SIGKILL)
        if self._process is not None:
            await self.exit_code()

    async def exit_code(self) -> int:
        """Wait for its end."""
        assert self._process is not None, "not started"
        return await self._process.wait()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; a process that has just ended is left alone."""
        assert self._process is not None, "not started"
        try:
            self._process.send_signal(number)
        except ProcessLookupError:
            pass  # it ended between the check and the signal


def log_tail(path: Path) -> str:
    """The last lines of a log, for an error message."""
    try:
        lines = path.read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return "it wrote no log"
    return " / ".join(lines[-LOG_TAIL_LINES:]) or "its log is empty"


def end_with_parent(parent_pid: int) -> None:
    """In a child: let the kernel end this process when its parent dies, so that a killed parent leaves nothing running.

    The child asks for it itself: a function between fork and exec would make every start a full fork of the parent.
    Does nothing where there is no such call (outside Linux).
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))
        if os.getppid() != parent_pid:
            os.kill(os.getpid(), signal.SIGTERM)  # it died before we asked
