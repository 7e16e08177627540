"""One running system for all end-to-end tests: two store nodes, ingest, syncd. Tests take a workspace of their own."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from relayfile.local.system import LocalSystem
from tests.support.client import Client, client_of
from tests.support.system import NODES, started_system


@pytest_asyncio.fixture(loop_scope="session", scope="session")
async def system(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LocalSystem]:
    async with started_system(tmp_path_factory.mktemp("system"), nodes=NODES) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="session", scope="session")
async def client(system: LocalSystem) -> AsyncIterator[Client]:
    async with client_of(system) as connected:
        yield connected


@pytest.fixture
def workspace(request: pytest.FixtureRequest) -> str:
    """A name that no other test uses. It does not exist yet."""
    return str(request.node.name).partition("[")[0].replace("_", "-")[:100]
