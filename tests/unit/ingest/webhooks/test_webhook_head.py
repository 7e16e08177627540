"""HEAD: 200 for a provider that asks with it before it takes a URL, and for nobody else."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.unit.ingest.front import WORKSPACE, Client, Front, running_front


@pytest.fixture
async def front(tmp_path: Path) -> AsyncIterator[Front]:
    async with running_front(tmp_path) as running:
        yield running


async def head(front: Front, provider: str, method: str = "HEAD") -> bytes:
    """The status line and headers of the answer, and whatever follows them until the connection ends."""
    client = await Client.connect(front.address)
    target = f"/v1/workspaces/{WORKSPACE}/webhooks/{provider}"
    client.send(f"{method} {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
    answer = await client.reader.read()
    await client.close()
    return answer


async def test_a_provider_that_asks_by_head_is_told_that_somebody_is_there(front: Front) -> None:
    answer = await head(front, "intercom")
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.endswith(b"\r\n\r\n")
    assert front.intake.accepted == []
    assert front.rejected.newest("", 0, 10) == []


@pytest.mark.parametrize(
    ("provider", "method"), [("github", "HEAD"), ("no-such-provider", "HEAD"), ("intercom", "GET"), ("intercom", "PUT")]
)
async def test_every_other_is_refused(front: Front, provider: str, method: str) -> None:
    assert (await head(front, provider, method)).startswith(b"HTTP/1.1 405 ")
    assert front.rejected.newest("", 0, 10)[0].reason == "METHOD_NOT_ALLOWED"
