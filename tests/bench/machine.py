"""The machine under a benchmark: how fast its processor and its disk are in this very minute, and who uses them."""

import os
import time
from collections.abc import Mapping
from pathlib import Path

PROBE_SECONDS = 1.0
HONEST_FSYNCS_PER_S_MAX = 20_000
"""A disk that claims more does not wait for its medium: nothing measured on it says anything about durability."""


def machine_score() -> float:
    """Million steps per second of a fixed pure-Python loop: comparable between runs, not between interpreters."""
    steps = 2_000_000
    start = time.perf_counter()
    value = 1
    for step in range(steps):
        value = (value * 31 + step) & 0xFFFFFF
    return steps / (time.perf_counter() - start) / 1e6


def fdatasync_per_s(folder: Path) -> float:
    """fdatasyncs of 4 KiB appends in one second."""
    path = folder / "fdatasync.probe"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        count = 0
        start = time.perf_counter()
        while (elapsed := time.perf_counter() - start) < PROBE_SECONDS:
            os.write(descriptor, b"x" * 4096)
            os.fdatasync(descriptor)
            count += 1
        return count / elapsed
    finally:
        os.close(descriptor)
        path.unlink()


def file_system(folder: Path) -> str:
    """Type of the file system that holds `folder`."""
    best, kind = "", "unknown"
    target = str(folder.resolve())
    for line in Path("/proc/mounts").read_text().splitlines():
        _, mount, this, *_ = line.split()
        if (target == mount or target.startswith(mount.rstrip("/") + "/")) and len(mount) >= len(best):
            best, kind = mount, this
    return kind


def describe(folder: Path) -> dict[str, object]:
    """What every benchmark's detail says about the machine."""
    syncs = fdatasync_per_s(folder)
    kind = file_system(folder)
    return {
        "cpus": os.cpu_count(),
        "load_average_1m": os.getloadavg()[0],
        "machine_score": round(machine_score(), 2),
        "file_system": kind,
        "fdatasync_per_s": round(syncs),
        "durable_disk": kind != "tmpfs" and syncs <= HONEST_FSYNCS_PER_S_MAX,
    }


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and of its ended children."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(fields[index]) for index in (11, 12, 13, 14)) / os.sysconf("SC_CLK_TCK")


def cpu_of(pids: Mapping[str, int]) -> dict[str, float]:
    return {name: cpu_seconds(pid) for name, pid in pids.items()}


def used_since(before: Mapping[str, float], pids: Mapping[str, int]) -> dict[str, float]:
    """CPU seconds per process since `before`."""
    return {name: round(seconds - before[name], 2) for name, seconds in cpu_of(pids).items()}


def peak_memory_mib(pid: int) -> float:
    """Highest resident set of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    return 0.0
