"""Settings of an ingest process, and the webhook secrets that its environment may carry."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from relayfile.placement import check_any_workspace_id
from relayfile.settings.apps import AppDefinition, declare_apps
from relayfile.settings.definition import (
    Definition,
    choice,
    count,
    declare,
    duration,
    endpoint,
    endpoints,
    flag,
    optional_path,
    size,
    text,
)
from relayfile.settings.groups import ClusterSettings

SpoolMode = Literal["disk", "through"]
CoalesceLeading = Literal["on", "off"]


@dataclass(frozen=True, slots=True)
class ProviderSecrets:
    """The live secrets with which one provider signs for one workspace, newest first."""

    workspace: str
    provider: str
    secrets: tuple[str, ...] = field(repr=False)


def parse_webhook_secrets(raw: str) -> tuple[ProviderSecrets, ...]:
    """``{"<workspace>/<provider>": ["secret", ...]}``; of an app `_app/<app>/<provider>`. No secret in messages."""
    try:
        table = json.loads(raw or "{}")
    except json.JSONDecodeError as error:
        raise ValueError(f"is not JSON (character {error.pos})") from None
    if not isinstance(table, dict):
        raise ValueError("is not a JSON object")  # noqa: TRY004 - what is wrong is a value's text
    return tuple(_provider_secrets(key, value) for key, value in table.items())


def _provider_secrets(key: str, value: object) -> ProviderSecrets:
    workspace, slash, provider = key.rpartition("/")
    if not slash or not provider or check_any_workspace_id(workspace) is not None:
        raise ValueError(f"has the key {key!r}, which is neither <workspace>/<provider> nor _app/<app>/<provider>")
    secrets = (value,) if isinstance(value, str) else value
    if not isinstance(secrets, list | tuple) or not secrets:
        raise ValueError(f"has no list of secrets under {key!r}")
    if not all(isinstance(secret, str) and secret for secret in secrets):
        raise ValueError(f"has something other than non-empty text among the secrets of {key!r}")
    return ProviderSecrets(workspace, provider, tuple(secrets))


def render_webhook_secrets(secrets: tuple[ProviderSecrets, ...]) -> str:
    """The JSON that ``parse_webhook_secrets`` reads, with the secrets in it."""
    return json.dumps({f"{each.workspace}/{each.provider}": each.secrets for each in secrets}) if secrets else ""


def _webhook_secrets() -> tuple[ProviderSecrets, ...]:
    none: tuple[ProviderSecrets, ...] = ()
    return declare(
        none,
        Definition(
            parse_webhook_secrets,
            render_webhook_secrets,
            '{"<workspace>/<provider>": ["newest", "older"]}',
            "secrets that providers sign with; several are live at once, so that one can be rotated",
            secret=True,
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestSettings(ClusterSettings):
    """One ingest process: what it accepts, how it holds and folds, what it keeps on disk."""

    http_address: str = endpoint("127.0.0.1:7430", "where webhooks arrive (HTTP)", env="RELAYFILE_INGEST_HTTP_ADDRESS")
    grpc_address: str = endpoint("127.0.0.1:7431", "where envelopes arrive (gRPC)", env="RELAYFILE_INGEST_GRPC_ADDRESS")
    admin_http_address: str = endpoint(
        "127.0.0.1:7432", "/healthz, /readyz and /metrics", env="RELAYFILE_INGEST_ADMIN_HTTP_ADDRESS"
    )
    admin_grpc_address: str = endpoint(
        "127.0.0.1:7433", "plaintext health for probes, and channelz", env="RELAYFILE_INGEST_ADMIN_GRPC_ADDRESS"
    )
    public_url: str = text("", "base URL that providers call and some sign", accepts="http(s)://host[:port], or empty")
    providers_dir: Path | None = optional_path("directory of provider files that add to or replace the built-in ones")
    webhook_secrets: tuple[ProviderSecrets, ...] = _webhook_secrets()
    webhook_secrets_dir: Path | None = optional_path(
        "directory with one file <workspace>/<provider> for each sender, one secret per line, newest first"
    )

    apps: tuple[AppDefinition, ...] = declare_apps()
    routes_max: int = count(
        1_000_000, 1, 100_000_000, "routes of all apps that are kept in memory (200 B each); the rest are asked for"
    )

    body_bytes_max: int = size("26MiB", "1KiB", "256MiB", "largest webhook body (GitHub sends up to 25 MB)")
    header_bytes_max: int = size("64KiB", "4KiB", "1MiB", "largest set of request headers")
    bodies_bytes_max: int = size("256MiB", "1MiB", "16GiB", "bodies of all requests that are being read or answered")
    connections_max: int = count(10_000, 1, 1_000_000, "open HTTP connections; more are answered 503 and closed")
    request_timeout_s: float = duration(
        "15s",
        "100ms",
        "10m",
        "longest time for a request to arrive, headers and body; then 408",
        env="RELAYFILE_REQUEST_TIMEOUT",
    )
    idle_timeout_s: float = duration(
        "75s",
        "100ms",
        "1h",
        "how long an HTTP connection without a request is kept; load balancers in front should let go of it earlier",
        env="RELAYFILE_IDLE_TIMEOUT",
    )
    idle_grace_s: float = duration(
        "3s",
        "0s",
        "10m",
        "how long a stopping process keeps an HTTP connection for one more request, whose answer says that it is the "
        "last one (connection: close); longer than senders pause, and at most half of SHUTDOWN_GRACE",
        env="RELAYFILE_IDLE_GRACE",
    )
    accept_deadline_s: float = duration(
        "2500ms",
        "10ms",
        "30s",
        "longest time to an answer; then 503 (Slack gives 3 s)",
        env="RELAYFILE_ACCEPT_DEADLINE",
    )
    workspace_lookup_timeout_s: float = duration(
        "250ms", "10ms", "5s", "how long an unknown workspace is asked for before 404"
    )
    signature_tolerance_s: float = duration(
        "5m", "1s", "1h", "how old or early a signed timestamp may be, where the provider sets no tighter window"
    )
    rejected_requests_max: int = count(1_000, 0, 100_000, "refused requests remembered for ListRejectedRequests")

    envelope_workers: int = count(64, 1, 4096, "workspaces whose batches may be in flight to the store at once")
    envelope_queue_size: int = count(262_144, 1, 16_777_216, "folded objects held in memory; the rest waits on disk")
    coalesce_window_s: float = duration(
        "3s", "0s", "10m", "how long further changes of one object are held and folded; 0s: not at all"
    )
    coalesce_leading: CoalesceLeading = choice(
        "on", ("on", "off"), "on: the first change of a quiet object goes out at once; off: it is held too"
    )
    fold_members_max: int = count(4_096, 1, 4_096, "changes in one fold; a full fold is sent before its window ends")
    fold_bytes_max: int = size("32MiB", "64KiB", "256MiB", "content in one fold; as above")
    batch_bytes_max: int = size("1MiB", "64KiB", "3MiB", "content in one sub-batch to a shard")
    batch_changes_max: int = count(1_000, 1, 20_000, "changes in one sub-batch to a shard")
    redos_queued_max: int = count(
        4, 1, 64, "dead letters that each node may have handed over, to be normalised again one after the other"
    )
    in_flight_bytes_max: int = size("64MiB", "1MiB", "4GiB", "content sent to all nodes and not yet acknowledged")

    ingest_peers: tuple[str, ...] = endpoints(
        "ingest processes (gRPC; a name may stand for many, and this one may be among them): a process that stops"
        " hands to the others what the shards do not take"
    )
    drain_shards_s: float = duration(
        "8s",
        "0s",
        "10m",
        "how long a process that stops sends to the shards before it hands the rest to its peers; a part of the grace",
    )
    spool_mode: SpoolMode = choice(
        "disk",
        ("disk", "through"),
        "disk: accept durably even while the store is away; through: keep nothing, answer after the shard's commit",
    )
    through_queue_bytes_max: int = size(
        "64MiB", "1MiB", "16GiB", "without a spool: changes that wait for their commit; more get 503 at once"
    )
    spool_bytes_max: int = size(
        "4GiB",
        "1MiB",
        "16TiB",
        "size of the spool; past half of it who is over its share gets 429, when it is full all get 503",
    )
    spool_commit_linger_s: float = duration(
        "8ms", "0s", "100ms", "longest wait for company before an fsync, while as many as pay for it come; else none"
    )
    spool_commit_bytes_max: int = size("8MiB", "64KiB", "256MiB", "bytes in one spool transaction")
    spool_read_bytes_max: int = size("8MiB", "1MiB", "1GiB", "content read ahead from the spool into memory")
    spool_verify: bool = flag(True, "check the spool's integrity at start")
