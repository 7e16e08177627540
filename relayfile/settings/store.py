"""Settings of a store node."""

from dataclasses import dataclass
from pathlib import Path

from relayfile.errors import SettingError
from relayfile.settings.definition import count, duration, endpoint, names, optional_endpoint, optional_path, size
from relayfile.settings.groups import ClusterSettings
from relayfile.settings.targets import Network, TargetDefinition, declare_targets, networks


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreSettings(ClusterSettings):
    """One store node: what it serves, how it batches, what it keeps."""

    address: str = endpoint("127.0.0.1:7420", "where the node listens (gRPC)", env="RELAYFILE_STORE_ADDRESS")
    advertise_address: str = optional_endpoint("address that others reach this node at; default: its entry in NODES")
    admin_http_address: str = endpoint(
        "127.0.0.1:7421", "/healthz, /readyz and /metrics", env="RELAYFILE_STORE_ADMIN_HTTP_ADDRESS"
    )
    admin_grpc_address: str = endpoint(
        "127.0.0.1:7422", "plaintext health for probes, and channelz", env="RELAYFILE_STORE_ADMIN_GRPC_ADDRESS"
    )
    node_index: int = count(0, 0, 1023, "which entry of NODES this node is; stored, and checked at start")

    store_commit_linger_s: float = duration(
        "15ms",
        "0s",
        "100ms",
        "longest wait for company before a commit; adaptive: a change that comes alone never waits",
    )
    commit_bytes_max: int = size("8MiB", "64KiB", "256MiB", "bytes of content in one transaction")
    commit_changes_max: int = count(2_000, 1, 100_000, "changes in one transaction (measured optimum 500 to 2,000)")
    workspace_queue_changes_max: int = count(
        20_000, 100, 1_000_000, "changes that wait behind a workspace's uncommitted entry; more are refused"
    )
    node_queue_bytes_max: int = size("64MiB", "1MiB", "4GiB", "content of all changes that wait for a commit")
    stream_credit_bytes: int = size(
        "16MiB", "1MiB", "1GiB", "content that one ApplyEnvelopes stream may have in flight"
    )

    upload_bytes_max: int = size(
        "128MiB",
        "1MiB",
        "64GiB",
        "content of all running UploadFile calls, at least one file; more are refused",
    )
    upload_idle_s: float = duration("30s", "100ms", "1h", "longest wait for the next chunk of an UploadFile call")
    workspace_files_max: int = count(
        10_000_000, 0, 1_000_000_000_000, "files of a workspace that was made without a quota of its own; 0: any number"
    )
    workspace_bytes_max: int = size("1TiB", "0", "1024TiB", "their content together; 0: any")

    page_entries_default: int = count(5_000, 1, 20_000, "entries of a page when the request names no page_size")
    page_entries_max: int = count(20_000, 1, 20_000, "entries of a page at most; a larger page_size is coerced down")
    export_files_max: int = count(
        2_000_000, 0, 1_000_000_000, "files of a tree that ExportTree serves; larger trees are refused and listed"
    )
    exports_concurrent_max: int = count(8, 1, 1024, "ExportTree streams at once; more are refused and listed instead")
    watch_mark_interval_s: float = duration("10s", "10ms", "10s", "longest silence of a watch stream before a mark")

    provider_max_concurrency: int = count(
        8, 1, 10_000, "write-back operations of one provider in one workspace that workers have at once"
    )
    suppression_window_s: float = duration(
        "2m", "0s", "1h", "how long after its end a write-back operation is known by its echo, which is then suppressed"
    )
    writeback_attempts_max: int = count(10, 1, 1_000, "tries of a write-back operation; then it is dead-lettered")
    writeback_backoff_max_s: float = duration(
        "5m", "1s", "1d", "longest pause between two tries, which begins at 1 s and doubles; Retry-After may be longer"
    )
    writeback_providers: tuple[str, ...] = names(
        "asana,confluence,github,gitlab,hubspot,intercom,jira,linear,notion,shopify,slack,stripe",
        "providers whose directories carry agents' edits back in every workspace; others' do after a first delivery",
    )

    writeback_targets: tuple[TargetDefinition, ...] = declare_targets(
        "providers to whose URL the node brings edits itself, as signed requests (docs/write-back.md)",
        template=False,
    )
    fetch_targets: tuple[TargetDefinition, ...] = declare_targets(
        "providers from which the node fetches what a signal announced; the url has {id}, perhaps {type}, {workspace}",
        template=True,
    )
    writeback_workers: int = count(16, 1, 1_024, "requests to targets at once, of all providers together")
    outward_timeout_s: float = duration("20s", "100ms", "10m", "longest that one request to a target takes")
    outward_networks: tuple[Network, ...] = networks(
        "networks that targets may be in although they are private; link-local, loopback and private ones are refused"
    )

    delivery_retention_s: float = duration(
        "7d",
        "7d",
        "14d",
        "how long a redelivery or a repeated request is recognised; new work is refused before it ends",
    )
    dead_letter_retention_s: float = duration(
        "7d", "7d", "365d", "age at which an acknowledged dead letter is removed; others are kept"
    )
    dead_letters_max: int = count(
        100_000,
        100,
        100_000_000,
        "dead letters of one workspace, unless acknowledged; then its failures stay in the spool",
    )
    dead_letter_bytes_max: int = size("1GiB", "1MiB", "1TiB", "their bodies in one workspace; as above")
    replays_per_second_max: int = count(50, 1, 10_000, "dead letters that the node tries again in one second")
    event_retention_s: float = duration("24h", "1m", "365d", "age at which events are removed")
    events_max: int = count(1_000_000, 100, 1_000_000_000, "events kept for each workspace, whichever limit is first")
    admin_action_retention_s: float = duration(
        "90d", "1d", "3650d", "age at which the record of an administrative action is removed"
    )
    tombstone_retention_s: float = duration(
        "30d", "7d", "3650d", "how long the name of a deleted workspace stays taken, and what arrives for it is ignored"
    )
    operation_retention_s: float = duration(
        "30d", "1d", "3650d", "age after its end at which a write-back operation is removed; dead-lettered ones too"
    )
    retention_interval_s: float = duration("1m", "100ms", "1d", "pause between two rounds of removing what expired")
    backup_dir: Path | None = optional_path(
        "where copies go that stay on the node, and streamed ones while they are made; default: backups in DATA_DIR"
    )
    scrub_bytes_per_second_max: int = size(
        "32MiB", "64KiB", "16GiB", "content that a scrub reads and hashes in one second, unless it is told otherwise"
    )
    scrub_interval_s: float = duration(
        "7d",
        "0s",
        "365d",
        "rest between two scrubs that the node makes by itself, the first 10 min after its start; 0s: none",
    )
    scrub_background_bytes_per_second_max: int = size(
        "1MiB", "64KiB", "16GiB", "content that such a scrub reads and hashes in one second"
    )
    wal_bytes_max: int = size("64MiB", "4MiB", "4GiB", "write-ahead log size at which a checkpoint is forced")
    sqlite_cache_bytes: int = size("64MiB", "1MiB", "16GiB", "page cache of the node's writer connection")

    def __post_init__(self) -> None:
        if self.nodes and self.node_index >= len(self.nodes):
            raise SettingError(
                variable="RELAYFILE_NODE_INDEX",
                problem=f"is {self.node_index}, but RELAYFILE_NODES has {len(self.nodes)} entries",
                way_out=f"set it to a number below {len(self.nodes)}, or add the node to RELAYFILE_NODES",
            )
        if self.page_entries_default > self.page_entries_max:
            raise SettingError(
                variable="RELAYFILE_PAGE_ENTRIES_DEFAULT",
                problem=f"is {self.page_entries_default}, above RELAYFILE_PAGE_ENTRIES_MAX ({self.page_entries_max})",
                way_out="lower it, or raise RELAYFILE_PAGE_ENTRIES_MAX",
            )

    @property
    def public_address(self) -> str:
        """The address that NOT_OWNER and topology name for this node."""
        if self.advertise_address:
            return self.advertise_address
        return self.nodes[self.node_index] if self.nodes else self.address
