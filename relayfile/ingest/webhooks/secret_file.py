"""One file of live secrets, `<directory>/<workspace>/<provider>`: its text, and how it is replaced.

Owns the form (one secret per line, newest first; lines with `#` are comments), the comment that says until when an
unsigned handshake is awaited, and replacing a file so that a reader sees the old text or the new one and a power cut
loses neither. Refuses to show a secret. Everything here waits for the disk: call it from a thread.
"""

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from relayfile.ingest.webhooks.signature import SECRETS_MAX

FILE_BYTES_MAX: Final = 64 * 1024
LOCK_NAME: Final = ".lock"
_AWAITING: Final = "# relayfile: awaiting the handshake until "
_TIME: Final = "%Y-%m-%dT%H:%M:%SZ"
_SECRET = re.compile(r"(?!#)[\x21-\x7e]{8,512}\Z")


class HandshakeRefused(Exception):
    """No secret is taken over now. ``reason`` is for the log of refused requests."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class SecretsFull(Exception):
    """The file has as many live secrets as are tried; one must be removed before another is taken over."""


@dataclass(frozen=True, slots=True)
class SecretFile:
    """What a file says."""

    secrets: tuple[str, ...] = field(default=(), repr=False)
    """Newest first, at most 16."""
    awaits_until_us: int = 0
    """Until then a handshake may bring a new one; 0: none may."""


def read(path: Path) -> SecretFile:
    """What the file at ``path`` says. `OSError` when it cannot be read."""
    with path.open(encoding="utf-8", errors="replace") as file:
        lines = file.read(FILE_BYTES_MAX).splitlines()
    secrets = tuple(line.strip() for line in lines if line.strip() and not line.startswith("#"))[:SECRETS_MAX]
    return SecretFile(secrets, max(map(_awaited_us, lines), default=0))


def await_handshake(directory: Path, workspace: str, provider: str, until_us: int) -> None:
    """Let one handshake bring a secret until then. What the file holds stays live. `OSError` when it cannot be."""
    folder = directory / workspace
    if not folder.exists():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _give(folder, directory.stat())
    until = datetime.fromtimestamp(until_us // 1_000_000, UTC).strftime(_TIME)
    with _locked(folder):
        _replace(folder / provider, [_AWAITING + until, *_lines_but_marks(folder / provider)])


def take_over(directory: Path, workspace: str, provider: str, secret: str, now_us: int) -> None:
    """Make ``secret`` the newest one and end the wait, durably and for every process that shares the directory.

    The older ones stay live: Asana has one for each of its webhooks. `HandshakeRefused` (`HANDSHAKE_MALFORMED`,
    `HANDSHAKE_NOT_AWAITED`), `SecretsFull`, `OSError`.
    """
    if _SECRET.match(secret) is None:
        raise HandshakeRefused("HANDSHAKE_MALFORMED")
    folder = directory / workspace
    path = folder / provider
    with _locked(folder):
        try:
            found = read(path)
        except FileNotFoundError:
            found = SecretFile()
        if now_us >= found.awaits_until_us:
            raise HandshakeRefused("HANDSHAKE_NOT_AWAITED")
        if len(found.secrets) >= SECRETS_MAX:
            raise SecretsFull
        _replace(path, [secret, *(line for line in _lines_but_marks(path) if line.strip() != secret)])


def _awaited_us(line: str) -> int:
    if not line.startswith(_AWAITING):
        return 0
    try:
        return (
            int(datetime.strptime(line.removeprefix(_AWAITING).strip(), _TIME).replace(tzinfo=UTC).timestamp()) * 10**6
        )
    except ValueError:
        return 0


def _lines_but_marks(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    return [line for line in text.splitlines() if not line.startswith(_AWAITING)]


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Alone among the processes that share the directory: of two handshakes one finds the wait ended."""
    descriptor = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _give(descriptor, folder.stat())
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _give(made: Path | int, like: os.stat_result) -> None:
    """Root makes for others: an operator's file that ingest cannot read would leave it without a secret."""
    if os.geteuid() == 0:
        os.chown(made, like.st_uid, like.st_gid)


def _replace(path: Path, lines: list[str]) -> None:
    like = path.stat() if path.exists() else None
    aside = path.with_name(f".{path.name}.new")
    aside.unlink(missing_ok=True)
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write("".join(f"{line}\n" for line in lines))
        file.flush()
        _give(descriptor, like or path.parent.stat())
        if like is not None:
            os.fchmod(descriptor, like.st_mode & 0o777)
        os.fsync(descriptor)
    aside.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
