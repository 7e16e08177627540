"""What both ends of a gRPC connection are told: how long it lives, how often it is probed, how large a message may be.

Owns the channel arguments of our servers, and of our processes' calls to one another; those of clients are
`relayfile.client.recommended`. The two ends must agree: a server ends the connection of a client that probes more often
than it admits (``too_many_pings``). Refuses to open anything.
"""

from typing import Final

from relayfile.errors import SettingError
from relayfile.settings import ClusterSettings

Arguments = list[tuple[str, int]]

MESSAGE_FRAME_BYTES: Final = 64 << 10
"""What frames the records of a message, above the bytes that a setting speaks of."""
RECONNECT_FIRST_MS: Final = 50
RECONNECT_MAX_MS: Final = 1_000
RESOLVE_MIN_MS: Final = 1_000
"""Between two look-ups of a name. gRPC's own 30 s are as long as a restarted pod with a new address is not found."""


def server_arguments(settings: ClusterSettings) -> Arguments:
    """Of our servers. ``SettingError`` when processes with these settings would be refused for their own probes."""
    if settings.keepalive_interval_s < settings.keepalive_interval_min_s:
        raise SettingError(
            variable="RELAYFILE_KEEPALIVE_INTERVAL",
            problem=f"is {settings.keepalive_interval_s:g} s, and servers end connections that are probed more often "
            f"than every {settings.keepalive_interval_min_s:g} s (RELAYFILE_KEEPALIVE_INTERVAL_MIN)",
            way_out="make it longer, or the other one shorter, in every process of the cluster",
        )
    arguments = [
        # With SO_REUSEPORT, the default, a port that is taken would be shared in silence.
        ("grpc.so_reuseport", 0),
        ("grpc.http2.min_ping_interval_without_data_ms", _ms(settings.keepalive_interval_min_s)),
        *_both_ends(settings),
    ]
    if settings.stream_age_max_s:
        arguments += [
            ("grpc.max_connection_age_ms", _ms(settings.stream_age_max_s)),
            ("grpc.max_connection_age_grace_ms", _ms(settings.stream_age_grace_s)),
        ]
    return arguments


def channel_arguments(settings: ClusterSettings, *, ahead_bytes: int = 0) -> Arguments:
    """Of a channel from one of our processes to another.

    ``ahead_bytes`` may be under way on a stream before it is read; 0: 64 KiB.
    """
    arguments = [
        ("grpc.enable_retries", 0),  # retries of calls are their owner's
        ("grpc.use_local_subchannel_pool", 1),
        *reconnecting(),
        *_both_ends(settings),
    ]
    if ahead_bytes:
        arguments += [("grpc.http2.lookahead_bytes", ahead_bytes), ("grpc.http2.bdp_probe", 0)]
    return arguments


def _both_ends(settings: ClusterSettings) -> Arguments:
    message_bytes_max = settings.message_bytes_max + MESSAGE_FRAME_BYTES
    return [
        *probes(settings.keepalive_interval_s, settings.keepalive_timeout_s),
        ("grpc.max_receive_message_length", message_bytes_max),
        ("grpc.max_send_message_length", message_bytes_max),
        ("grpc.max_metadata_size", settings.metadata_bytes_max),
    ]


def probes(interval_s: float, timeout_s: float) -> Arguments:
    """Probes at an interval, also while no call is open and nothing is sent; so a dead peer is noticed in between."""
    return [
        ("grpc.keepalive_time_ms", _ms(interval_s)),
        ("grpc.keepalive_timeout_ms", _ms(min(timeout_s, interval_s))),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
    ]


def reconnecting() -> Arguments:
    """Quickly, and at least once a second; also to the address that the name has by then."""
    return [
        ("grpc.initial_reconnect_backoff_ms", RECONNECT_FIRST_MS),
        ("grpc.min_reconnect_backoff_ms", RECONNECT_FIRST_MS),
        ("grpc.max_reconnect_backoff_ms", RECONNECT_MAX_MS),
        ("grpc.dns_min_time_between_resolutions_ms", RESOLVE_MIN_MS),
    ]


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
