"""Settings that several processes share, and the two small groups beside the processes' own.

A class is what one kind of process reads; its attributes are its settings. Adding a setting is adding a line.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from relayfile.placement import SHARD_COUNT_DEFAULT
from relayfile.settings.definition import (
    certificate_names,
    choice,
    count,
    duration,
    endpoints,
    optional_endpoint,
    optional_path,
    path,
    ratio,
    size,
    text,
)

LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["json", "console"]
CreateWorkspaces = Literal["never", "on-first-write"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsSettings:
    """How gRPC is encrypted."""

    tls_cert_file: Path | None = optional_path(
        "certificate chain (PEM) that gRPC servers, and their calls to others, show; empty: gRPC is not encrypted"
    )
    tls_key_file: Path | None = optional_path("its private key (PEM); both are read again when they were replaced")
    tls_ca_file: Path | None = optional_path(
        "authority (PEM) that vouches for other processes: a server with it lets in only callers with a certificate"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class CommonSettings(TlsSettings):
    """What every process reads."""

    data_dir: Path = path("relayfile-data", "where the process keeps everything that must survive it")
    keys_dir: Path | None = optional_path(
        "where the signing key and the public keys are; default: keys/ in the data directory"
    )
    jwks_file: Path | None = optional_path("public keys (JWKS) that tokens are checked with, instead of keys_dir's")
    jwks_url: str = text(
        "",
        "public keys (JWKS) of somebody else who issues tokens, besides the file's; fetched again and again",
        accepts="an https URL (http only on loopback), or empty",
    )
    jwks_refresh_s: float = duration(
        "5m", "10s", "1d", "how often JWKS_URL is fetched; after failures its keys count for 1 min longer"
    )
    service_token_file: Path | None = optional_path(
        "token that this process shows to other processes; without one it signs its own with the signing key"
    )
    tls_service_names: tuple[str, ...] = certificate_names(
        "DNS or URI names (SAN) of the certificates of all processes of the cluster: a caller with one needs no token, "
        "and this process shows none unless SERVICE_TOKEN_FILE is set; needs the three TLS files"
    )
    workspace_calls_per_second_max: int = count(
        0, 0, 10_000_000, "gRPC calls about one workspace that this process admits in one second; 0: any number"
    )
    caller_calls_per_second_max: int = count(
        0, 0, 10_000_000, "the same for each caller in a workspace (the subject of its token); 0: any number"
    )
    workspace_bytes_per_second_max: int = size(
        "0", "0", "100GiB", "bytes of requests and answers about one workspace in one second; 0: any number"
    )
    caller_bytes_per_second_max: int = size(
        "0", "0", "100GiB", "the same for each caller in a workspace; 0: any number"
    )
    log_level: LogLevel = choice("info", ("debug", "info", "warning", "error"), "the least severe log lines written")
    log_format: LogFormat = choice("json", ("json", "console"), "json for machines, console for eyes")
    otlp_endpoint: str = optional_endpoint("gRPC address of an OpenTelemetry collector; empty: spans are not exported")
    trace_sample_ratio: float = ratio(0.1, "share of new traces that is recorded; a caller's own decision is kept")
    trace_queue_spans_max: int = count(
        8192, 64, 1_000_000, "finished spans that wait for export, four links counted as one more; the rest is dropped"
    )
    shutdown_grace_s: float = duration(
        "20s", "0s", "10m", "how long a stopping process may drain; keep it below the orchestrator's kill timeout"
    )
    stream_age_max_s: float = duration(
        "0s",
        "0s",
        "1d",
        "age (within a tenth) at which a connection takes no more calls, so that clients connect anew "
        "and load spreads; 0s: never",
    )
    stream_age_grace_s: float = duration(
        "10m",
        "0s",
        "1d",
        "how long calls on a connection of that age go on before they are cut: longer than exports, "
        "backups and scrubs take; watches resume by themselves",
    )
    address_file: Path | None = optional_path(
        "file to which a ready process writes the addresses it is bound to (JSON: grpc, http, admin_http, admin_grpc)"
    )
    fault: str = text("", "tests only: the fault point at which the process kills itself", accepts="name or name:N")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSettings(CommonSettings):
    """What store, ingest and syncd must agree on, or share."""

    nodes: tuple[str, ...] = endpoints(
        "gRPC addresses of all store nodes, in the order of their index; shard s belongs to node s mod N"
    )
    shard_count: int = count(
        SHARD_COUNT_DEFAULT, 1, 65_536, "shards of the cluster; fixed when it is created, and checked at start"
    )
    message_bytes_target: int = size(
        "1MiB", "64KiB", "3MiB", "size to which a streamed message is filled with records (measured optimum)"
    )
    content_bytes_max: int = size("16MiB", "1KiB", "256MiB", "largest file; refused before it is buffered")
    clock_skew_max_s: float = duration(
        "2s", "0s", "5m", "difference of receive times below which two ingest processes' order is that of arrival"
    )
    create_workspaces: CreateWorkspaces = choice(
        "never", ("never", "on-first-write"), "whether the first write or delivery creates an unknown workspace"
    )
    keepalive_interval_s: float = duration("20s", "1s", "1h", "how often an idle connection is probed for life")
    keepalive_timeout_s: float = duration(
        "10s",
        "100ms",
        "10m",
        "how long a probe may go unanswered before the connection counts as dead; at most the interval",
    )
    keepalive_interval_min_s: float = duration(
        "5s",
        "100ms",
        "20s",
        "servers end connections that are probed more often, which costs them CPU (too_many_pings); "
        "at most KEEPALIVE_INTERVAL, and what clients elsewhere have set",
    )
    message_bytes_max: int = size(
        "4MiB", "4MiB", "256MiB", "largest gRPC message that is taken or sent; 64 KiB more for what frames it"
    )
    metadata_bytes_max: int = size("32KiB", "8KiB", "1MiB", "headers, or trailers, of one call; a token is among them")
    call_timeout_s: float = duration("10s", "100ms", "10m", "deadline of calls between processes")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSettings(TlsSettings):
    """What the command line reads to reach a running system."""

    store_address: str = optional_endpoint("gRPC address of a store node", env="RELAYFILE_STORE")
    ingest_address: str = optional_endpoint("gRPC address of an ingest process", env="RELAYFILE_INGEST")
    syncd_address: str = optional_endpoint("gRPC address of syncd", env="RELAYFILE_SYNCD")
    token: str = text("", "token that commands show", accepts="a token", secret=True)
    token_file: Path | None = optional_path("file with the token, read again when it changes")
