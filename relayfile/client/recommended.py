"""What every client of ours should set on its channel: the service config, probes, and the size of messages.

The service config (`relayfile/service_config.json`) is gRPC's own format, so that other languages read the same file:
calls go round the addresses of a name and leave out nodes that stop, and reads are tried again. Writes are not in it:
gRPC cannot see whether a request has a `request_id`, without which a second attempt may have a second effect.
"""

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Final

from relayfile.connections import MESSAGE_FRAME_BYTES, probes, reconnecting

SERVICE_CONFIG_FILE: Final = "service_config.json"
KEEPALIVE_INTERVAL_S: Final = 30.0
"""Also while no call is open. Servers admit no interval longer than 20 s as the shortest, and 5 s by default."""
KEEPALIVE_TIMEOUT_S: Final = 10.0
MESSAGE_BYTES_MAX: Final = (4 << 20) + MESSAGE_FRAME_BYTES


@dataclass(frozen=True, slots=True)
class Backoff:
    """Pauses between attempts: random, up to a bound that grows from the first to the longest."""

    first_s: float
    longest_s: float


@cache
def service_config() -> str:
    """The service config as JSON text."""
    return (resources.files("relayfile") / SERVICE_CONFIG_FILE).read_text("utf-8")


@cache
def backoff() -> Backoff:
    """The pauses of its retry policy, which this client keeps too: its own attempts know deadlines and request ids."""
    (methods,) = json.loads(service_config())["methodConfig"]
    policy = methods["retryPolicy"]
    return Backoff(_seconds(policy["initialBackoff"]), _seconds(policy["maxBackoff"]))


def channel_arguments() -> list[tuple[str, int | str]]:
    """Of this client's channel."""
    return [
        ("grpc.service_config", service_config()),
        ("grpc.enable_retries", 0),  # of calls: the client's own attempts are in their stead
        *reconnecting(),
        *probes(KEEPALIVE_INTERVAL_S, KEEPALIVE_TIMEOUT_S),
        ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
        ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    ]


def _seconds(text: str) -> float:
    return float(text.removesuffix("s"))
