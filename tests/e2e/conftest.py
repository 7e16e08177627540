"""One running system for all end-to-end tests: two store nodes, ingest, syncd. Tests take a workspace of their own."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from relayfile.local.system import LocalSystem
from tests.support.client import Client, client_of
from tests.support.system import NODES, started_system

SHORT_WINDOW_S = 0.3
"""A second change of an object waits for so long; what the usual 3 s do is `test_batching`."""


@pytest_asyncio.fixture(loop_scope="session", scope="session")
async def system(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LocalSystem]:
    root = tmp_path_factory.mktemp("system")
    async with started_system(
        root, nodes=NODES, overrides={"RELAYFILE_COALESCE_WINDOW": f"{SHORT_WINDOW_S * 1000:.0f}ms"}
    ) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="session", scope="session")
async def client(system: LocalSystem) -> AsyncIterator[Client]:
    async with client_of(system) as connected:
        yield connected


@pytest.fixture
def workspace(request: pytest.FixtureRequest) -> str:
    """A name that no other test uses. It does not exist yet."""
    return str(request.node.name).partition("[")[0].replace("_", "-")[:100]
