"""Which processes a local system has, and what they are told."""

import sys
from pathlib import Path

import pytest

from relayfile.clock import SystemClock
from relayfile.errors import StartRefused
from relayfile.local.layout import Layout
from relayfile.local.process import Command, LocalProcess
from relayfile.local.system import Ports, choose_ports, commands, local_system, running
from relayfile.settings import IngestSettings, StoreSettings, SyncdSettings, load

PORTS = Ports(nodes=(1001, 1002), ingest_http=1003, ingest_grpc=1004, syncd=1005)


def test_free_ports_are_distinct() -> None:
    ports = choose_ports(3, usual=False)
    found = [*ports.nodes, ports.ingest_http, ports.ingest_grpc, ports.syncd]
    assert len(set(found)) == len(found) == 6


def test_the_environment_of_each_process_is_valid_and_consistent(tmp_path: Path) -> None:
    found = {each.name: each for each in commands(Layout(tmp_path), PORTS, {"RELAYFILE_COALESCE_WINDOW": "1s"})}
    assert list(found) == ["store-0", "store-1", "ingest", "syncd"]
    nodes = [load(StoreSettings, found[name].environment) for name in ("store-0", "store-1")]
    ingest = load(IngestSettings, found["ingest"].environment)
    syncd = load(SyncdSettings, found["syncd"].environment)
    assert [node.address for node in nodes] == list(ingest.nodes) == list(syncd.nodes)
    assert [node.node_index for node in nodes] == [0, 1]
    assert ingest.coalesce_window_s == 1.0
    assert len({node.data_dir for node in nodes} | {ingest.data_dir, syncd.data_dir}) == 4
    assert {each.keys_dir for each in (*nodes, ingest, syncd)} == {tmp_path / "keys"}


async def test_a_process_that_ends_before_it_is_ready_is_named_with_its_log(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    layout.create(None)
    process = LocalProcess(Command("store-0", "no-such-command", {"PATH": sys.exec_prefix}), layout, SystemClock())
    with pytest.raises(StartRefused, match=r"store-0 exited with 2: .*no-such-command"):
        await process.start()
    assert not process.running


async def test_of_a_system_that_cannot_start_the_reason_is_told_and_nothing_is_left(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    layout.create(1)
    system = local_system(layout, choose_ports(1, usual=False), SystemClock())
    node = system.processes["store-0"]
    node.command = Command("store-0", "store", {"PATH": sys.exec_prefix, "RELAYFILE_NO_SUCH": "1"})
    with pytest.raises(ExceptionGroup) as raised:
        async with running(system):
            raise AssertionError("it cannot start")
    assert raised.group_contains(StartRefused, match="RELAYFILE_NO_SUCH")
    assert not any(process.running for process in system.processes.values())
