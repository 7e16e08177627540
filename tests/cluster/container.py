"""One container: the image's command as a process, with the environment and the files that the manifest gives it."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.cluster import confining
from tests.cluster.confining import Confinement
from tests.cluster.probe import Probe
from tests.support.manifests import ROOT, Object

LOG_TAIL_BYTES = 2_000


class Container:
    """Runs `args` of the image's entry point, which is `relayfile`; knows how to probe, stop and kill it."""

    def __init__(
        self,
        spec: Object,
        environment: Mapping[str, str],
        pod_address: str,
        directory: Path,
        log: Path,
        confinement: Confinement | None,
    ) -> None:
        self.name = str(spec["name"])
        self.args: Sequence[str] = spec["args"]
        self.environment = environment
        self.log = log
        self.startup, self.readiness, self.liveness = (
            Probe.of(spec[name], pod_address) if name in spec else None
            for name in ("startupProbe", "readinessProbe", "livenessProbe")
        )
        self.pre_stop_s: float = spec.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        self._directory = directory
        self._confinement = json.dumps(confinement._asdict()) if confinement else ""
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Begin; what it writes is added to its log.

        Not by the event loop: that forks, and a fork of a process in which gRPC is at work now and then dies before the
        exec. `subprocess` does without.
        """
        # Of the test's own environment a container has nothing but where Python is.
        own = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, confining.__file__, self._confinement, "-m", "relayfile", *self.args],
                cwd=self._directory,
                env={**own, "PYTHONPATH": str(ROOT), **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def has_succeeded(self) -> bool:
        return self._process is not None and self._process.poll() == 0

    async def ended(self) -> int | None:
        """Wait for its end: the exit code; None when it was never started."""
        if self._process is None:
            return None
        if self._process.poll() is None:
            try:
                await _end_of(self._process.pid)
            except ProcessLookupError:
                pass  # it has ended meanwhile, and somebody else has heard of it
        return self._process.wait()

    def signal(self, number: signal.Signals) -> None:
        """Unless it has ended."""
        if self._process is not None and self.is_running:
            self._process.send_signal(number)

    def tail(self) -> str:
        """The end of its log."""
        return self.log.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace")


async def _end_of(pid: int) -> None:
    """Return when a child has ended. `ProcessLookupError` when it was waited for already."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    descriptor = os.pidfd_open(pid)
    try:
        loop.add_reader(descriptor, ended.set)
        await ended.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
