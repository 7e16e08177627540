"""What every test run shares: the event loop, what a test may need of the machine, and an honest account of skips.

`RELAYFILE_TEST_STRICT=1` (set by .ci/run where all tools are present) turns a skip into a failure; only tests that
read ../shared/data, and those of the example in another language, may still be skipped.
"""

import asyncio
import os
import shutil
from collections.abc import Callable, Generator, Mapping
from pathlib import Path

import hypothesis
import pytest
import uvloop

# Before grpc is imported: a peer that a test kills is no news for the terminal.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
# Nor its handlers of forks: uvloop forks, and with calls under way one started process in a hundred crashed in them
# before it began. (`relayfile up` runs on asyncio's loop, which starts processes otherwise: none of 1,200.)
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

ROOT = Path(__file__).resolve().parent.parent
SHARED_DATA = ROOT.parent / "shared" / "data"

# marker -> (is the need met?, what to say when it is not)
NEEDS: dict[str, tuple[Callable[[], bool], str]] = {
    "needs_data": (SHARED_DATA.is_dir, "../shared/data is not there"),
    "needs_root": (lambda: os.geteuid() == 0, "needs root"),
    "needs_strace": (lambda: shutil.which("strace") is not None, "strace is not installed"),
    "needs_promtool": (lambda: shutil.which("promtool") is not None, "promtool (Debian's prometheus) is not installed"),
    "needs_node": (lambda: all(map(shutil.which, ("node", "npm"))), "node and npm are not installed"),
    "needs_loop_mount": (
        lambda: Path("/dev/loop-control").exists() and shutil.which("mkfs.ext4") is not None,
        "needs loop devices and mkfs.ext4",
    ),
}
MAY_SKIP_WHEN_STRICT = ("needs_data", "needs_node")
STRICT = os.environ.get("RELAYFILE_TEST_STRICT") == "1"

# The same examples every time, so that a red run is red again; no deadline, because the machine may be busy.
# `pytest --hypothesis-profile=search tests/property` looks further, and prints what reproduces a find.
hypothesis.settings.register_profile("steady", derandomize=True, deadline=None)
hypothesis.settings.register_profile("search", max_examples=2_000, deadline=None, print_blob=True)
hypothesis.settings.load_profile("steady")


@pytest.fixture
def shared_data(request: pytest.FixtureRequest) -> Path:
    """The folder of sample data beside the project; a test that takes it must be marked `needs_data`."""
    if request.node.get_closest_marker("needs_data") is None:
        pytest.fail("mark this test with pytest.mark.needs_data: its data may be absent")
    return SHARED_DATA


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Tests run on the loop that the processes run on."""
    return {"uvloop": uvloop.new_event_loop}


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker, (is_met, reason) in NEEDS.items():
        if item.get_closest_marker(marker) is not None and not is_met():
            pytest.skip(reason)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    expected_failure = hasattr(report, "wasxfail")
    allowed = any(item.get_closest_marker(marker) for marker in MAY_SKIP_WHEN_STRICT)
    if STRICT and report.skipped and not expected_failure and not allowed:
        report.outcome = "failed"
        report.longrepr = f"skipped under RELAYFILE_TEST_STRICT=1: {_reason(report)}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if STRICT and report.skipped:
        report.outcome = "failed"
        report.longrepr = f"skipped under RELAYFILE_TEST_STRICT=1: {_reason(report)}"
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line per skipped test with its reason: what this run did not check."""
    skipped = terminalreporter.stats.get("skipped", [])
    if not skipped:
        return
    terminalreporter.section(f"{len(skipped)} skipped: not checked in this run")
    width = max(len(report.nodeid) for report in skipped)
    for report in skipped:
        terminalreporter.write_line(f"{report.nodeid:<{width}}  {_reason(report)}")


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return text.removeprefix("Skipped: ")
