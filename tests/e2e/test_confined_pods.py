"""What the runner of manifests makes of a pod: it writes to its volumes alone, and finds others by names that move."""

import asyncio
import json
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.cluster import confining
from tests.cluster.confining import Confinement
from tests.cluster.names import NameServer, resolver_file
from tests.cluster.network import Loopback

pytestmark = pytest.mark.needs_root

TRIES = """
import os, socket, sys
for path in sys.argv[1:]:
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT))
        print("written")
    except OSError as error:
        print(os.strerror(error.errno))
"""
LOOKS_UP = """
import socket, sys
for name in sys.argv[1:]:
    try:
        print(*sorted({info[4][0] for info in socket.getaddrinfo(name, 1, socket.AF_UNSPEC)}))
    except socket.gaierror as error:
        print(error.errno)
"""


async def said_by(program: str, arguments: Sequence[str], to: Confinement) -> list[str]:
    """The lines that a confined program writes."""
    command = [sys.executable, confining.__file__, json.dumps(to._asdict()), "-c", program, *arguments]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=True, timeout=50)
    return done.stdout.splitlines()


async def test_a_container_writes_to_its_volumes_alone(tmp_path: Path) -> None:
    volume, other = tmp_path / "volume", tmp_path / "other"
    for each in (volume, other):
        each.mkdir()
    resolver = tmp_path / "resolv.conf"
    resolver.write_text("")
    tried = [str(volume / "a"), str(other / "a"), "/etc/hosts", "/var/tmp/relayfile-test", "/dev/shm/relayfile-test"]
    said = await said_by(TRIES, tried, Confinement([str(volume)], str(resolver)))
    assert said == ["written", *["Read-only file system"] * 4]
    assert (volume / "a").exists()
    (other / "a").touch()


async def test_a_name_leads_to_where_its_pod_is_now(tmp_path: Path) -> None:
    known = {"store-0.nodes": ["127.1.2.3"], "nodes": ["127.1.2.3", "127.1.2.4"], "nobody-is-ready": []}
    server = NameServer(Loopback().address(), "relayfile", known.get)
    resolver = tmp_path / "resolv.conf"
    resolver.write_text(resolver_file(server.address, "relayfile"))
    to = Confinement([], str(resolver))
    await server.start()
    try:
        asked = ["store-0.nodes", "nodes", "nodes.relayfile.svc.cluster.local", "nobody-is-ready", "store-1.nodes"]
        no_name, no_address = str(int(socket.EAI_NONAME)), str(int(socket.EAI_NODATA))
        both = "127.1.2.3 127.1.2.4"
        assert await said_by(LOOKS_UP, asked, to) == ["127.1.2.3", both, both, no_address, no_name]
        known["store-0.nodes"] = ["127.1.2.9"]
        assert await said_by(LOOKS_UP, asked[:1], to) == ["127.1.2.9"]
    finally:
        server.close()
