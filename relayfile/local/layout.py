"""Where a local system keeps what it owns, below one data directory.

cluster.json          node count of the first start: shards follow the files, so that it cannot change afterwards
keys/                 signing key and public keys, shared by the processes
secrets/W/P           webhook secrets of provider P for workspace W
store-I/ ingest/ syncd/   what each process keeps
run/NAME.json         addresses of a ready process; run/runtime.json of the whole system
logs/NAME.log         what each process wrote
"""

import json
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path

from relayfile.errors import StartRefused


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where a ready process listens; empty for what it does not serve."""

    grpc: str = ""
    http: str = ""
    admin_http: str = ""
    admin_grpc: str = ""


@dataclass(frozen=True, slots=True)
class Runtime:
    """A running local system, as other commands find it."""

    pid: int
    nodes: tuple[str, ...]
    ingest_http: str
    ingest_grpc: str
    syncd_grpc: str
    token_file: str


@dataclass(frozen=True, slots=True)
class Layout:
    """The paths below one data directory. `create` makes what must exist before the first process starts."""

    root: Path

    @property
    def keys(self) -> Path:
        return self.root / "keys"

    @property
    def secrets(self) -> Path:
        return self.root / "secrets"

    @property
    def token(self) -> Path:
        return self.root / "keys" / "development.token"

    @property
    def runtime(self) -> Path:
        return self.root / "run" / "runtime.json"

    def data(self, process: str) -> Path:
        return self.root / process

    def address_file(self, process: str) -> Path:
        return self.root / "run" / f"{process}.json"

    def log(self, process: str) -> Path:
        return self.root / "logs" / f"{process}.log"

    def create(self, node_count: int | None) -> int:
        """Make the folders and record the node count at the first start; answer the recorded one.

        Raises `StartRefused` when another count is asked for than the data have.
        """
        for folder in (self.root, self.keys, self.secrets, self.root / "run", self.root / "logs"):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        cluster = self.root / "cluster.json"
        if not cluster.exists():
            write_atomically(cluster, json.dumps({"node_count": node_count or 1}))
        recorded = int(json.loads(cluster.read_text())["node_count"])
        if node_count is not None and node_count != recorded:
            raise StartRefused(
                why=f"the data in {self.root} belong to {recorded} nodes, and {node_count} were asked for; "
                f"start with --nodes {recorded}, or choose another --data-dir"
            )
        return recorded

    def webhook_secret(self, workspace: str, provider: str) -> str:
        """The newest secret of a sender, made when there is none."""
        path = self.secrets / workspace / provider
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_atomically(path, secrets.token_hex(24) + "\n")
        return path.read_text().split()[0]

    def write_runtime(self, runtime: Runtime) -> None:
        write_atomically(self.runtime, json.dumps(asdict(runtime), indent=2) + "\n")

    def read_runtime(self) -> Runtime | None:
        """The running system, or None when none is recorded."""
        try:
            found = json.loads(self.runtime.read_text())
        except FileNotFoundError:
            return None
        return Runtime(**{**found, "nodes": tuple(found["nodes"])})

    def read_addresses(self, process: str) -> Addresses | None:
        """A ready process's addresses, or None while it is not ready."""
        try:
            return Addresses(**json.loads(self.address_file(process).read_text()))
        except FileNotFoundError:
            return None


def write_atomically(path: Path, text: str) -> None:
    """Readers see the old text or the new one; only the owner may read it."""
    aside = path.with_name(path.name + ".new")
    aside.unlink(missing_ok=True)
    aside.touch(mode=0o600)
    aside.write_text(text)
    aside.replace(path)
