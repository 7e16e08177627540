"""How a command finds the running system: by options and environment, else by the data directory's runtime file."""

import os
from dataclasses import dataclass
from pathlib import Path

import grpc.aio

from relayfile import serving
from relayfile.errors import StartRefused
from relayfile.local.layout import Layout
from relayfile.settings import ClientSettings, ClusterSettings, TlsSettings, load

Credentials = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Connection:
    """Where the processes of a system are, and the token to show them."""

    store: str
    ingest_grpc: str
    ingest_http: str
    syncd: str
    token: str
    layout: Layout
    nodes: tuple[str, ...] = ()
    """Store nodes, as far as they are known here: `store` is the first."""

    @property
    def credentials(self) -> Credentials:
        """What shows the token on a call."""
        return bearer(self.token)


def bearer(token: str) -> Credentials:
    """Call metadata that shows a token."""
    return (("authorization", f"Bearer {token}"),)


def open_channel(address: str) -> grpc.aio.Channel:
    """A channel to a process of the running system, as `async with`."""
    tls = load(TlsSettings)
    settings = ClusterSettings(
        tls_cert_file=tls.tls_cert_file, tls_key_file=tls.tls_key_file, tls_ca_file=tls.tls_ca_file
    )
    return serving.channel(address, settings)


def connect(data_dir: Path) -> Connection:
    """Find a running system. Raises `StartRefused` when neither settings nor a runtime file name one."""
    settings = load(ClientSettings)
    layout = Layout(data_dir.resolve())
    runtime = layout.read_runtime()
    named = settings.store_address or settings.ingest_address or settings.syncd_address
    if not named and (runtime is None or not _is_alive(runtime.pid)):
        found = "no running system is recorded" if runtime is None else "the recorded system is no longer running"
        raise StartRefused(
            why=f"{found} in {data_dir}; start one with `relayfile up --data-dir {data_dir}` and wait until it "
            "says that it is up, or set RELAYFILE_STORE, RELAYFILE_INGEST and RELAYFILE_SYNCD"
        )
    known = (settings.store_address,) if settings.store_address else (runtime.nodes if runtime else ())
    return Connection(
        nodes=known,
        store=settings.store_address or (runtime.nodes[0] if runtime else ""),
        ingest_grpc=settings.ingest_address or (runtime.ingest_grpc if runtime else ""),
        ingest_http=runtime.ingest_http if runtime else "",
        syncd=settings.syncd_address or (runtime.syncd_grpc if runtime else ""),
        token=settings.token or _read_token(settings.token_file or (Path(runtime.token_file) if runtime else None)),
        layout=layout,
    )


def _is_alive(pid: int) -> bool:
    """Whether a process has this id; somebody else's counts too."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _read_token(path: Path | None) -> str:
    return path.read_text().strip() if path is not None and path.exists() else ""
