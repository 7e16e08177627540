"""Every channel that reconnects looks its name up again soon: a restarted pod comes back with another address."""

from typing import Any

import grpc.aio
import pytest

from relayfile.client.recommended import channel_arguments
from relayfile.connections import RESOLVE_MIN_MS
from relayfile.serving import channel
from relayfile.settings import IngestSettings, StoreSettings, SyncdSettings, load

ARGUMENT = "grpc.dns_min_time_between_resolutions_ms"


@pytest.mark.parametrize("kind", [IngestSettings, StoreSettings, SyncdSettings])
@pytest.mark.parametrize("ahead_bytes", [0, 1 << 20])
def test_of_our_processes(kind: Any, ahead_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    monkeypatch.setattr(grpc.aio, "insecure_channel", lambda _address, *, options: made.append(options))
    channel("store-0:7000", load(kind, {}), ahead_bytes=ahead_bytes)
    assert [dict(each)[ARGUMENT] for each in made] == [RESOLVE_MIN_MS]


def test_of_the_client() -> None:
    assert dict(channel_arguments())[ARGUMENT] == RESOLVE_MIN_MS == 1_000
