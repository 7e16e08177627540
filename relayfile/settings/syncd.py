"""Settings of syncd, which mirrors workspaces to directories."""

from dataclasses import dataclass

from relayfile.settings.definition import count, count_or_off, duration, endpoint, size
from relayfile.settings.groups import ClusterSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncdSettings(ClusterSettings):
    """One syncd: how it pulls, how often it proves what it has, what it keeps."""

    address: str = endpoint("127.0.0.1:7440", "where MirrorService listens (gRPC)", env="RELAYFILE_SYNCD_ADDRESS")
    admin_http_address: str = endpoint(
        "127.0.0.1:7441", "/healthz, /readyz and /metrics", env="RELAYFILE_SYNCD_ADMIN_HTTP_ADDRESS"
    )
    admin_grpc_address: str = endpoint(
        "127.0.0.1:7442", "plaintext health for probes, and channelz", env="RELAYFILE_SYNCD_ADMIN_GRPC_ADDRESS"
    )

    sync_read_concurrency: int = count(16, 1, 1024, "read streams at once over all mirrors; they hide latency")
    sync_page_entries: int = count(5_000, 1, 20_000, "entries in one page of a listing")
    sync_read_bytes_max: int = size("64MiB", "1MiB", "4GiB", "content fetched and not yet written, over all mirrors")
    sync_barrier_bytes: int = size("256MiB", "1MiB", "16GiB", "bytes written between two durability barriers")
    sync_batch_files_max: int = count(1_000, 1, 20_000, "files written and journalled together")
    sync_events_max: int = count(10_000, 1, 1_000_000, "events read ahead of what is on disk, for each mirror")

    mount_interval_s: float = duration("30s", "10ms", "1d", "length of a cycle of checks, whether or not events flow")
    mount_audit_every: int = count(10, 1, 1_000_000, "cycles between two audits of a mirror that follows")
    mount_full_pull_every: int = count_or_off(
        100, 1, 1_000_000, "cycles after which all is listed where a digest cannot be had or an audit could not repair"
    )
    mount_full_pull_max_files: int = count(
        10_000, 0, 1_000_000_000, "files above which a mirror is never listed whole by itself"
    )
    mount_verify_every_s: float = duration(
        "1h", "1s", "30d", "how often every file's stat is compared with the journal"
    )
    watch_silence_max_s: float = duration("30s", "100ms", "10m", "silence after which a watch stream counts as dead")
    retry_delay_max_s: float = duration("30s", "10ms", "1h", "longest pause between two attempts to reach the store")

    trash_bytes_max: int = size("1GiB", "0", "16TiB", "bytes kept in a mirror's trash")
    trash_retention_s: float = duration("7d", "0s", "365d", "age at which trash is removed")
    delete_files_max: int = count(1_000, 1, 1_000_000_000, "files that one plan may delete without approval")
    problems_max: int = count(10_000, 100, 1_000_000, "problems listed for one mirror")
