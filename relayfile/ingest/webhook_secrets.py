"""The live secrets of senders, by workspace and provider: from the settings, and from a directory that may change.

Owns reading `<directory>/<workspace>/<provider>` (one secret per line, newest first), and noticing within a second that
it was replaced, so that a secret can be rotated without a restart. Refuses to log or show a secret.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from relayfile.clock import Clock
from relayfile.ingest.signature import SECRETS_MAX
from relayfile.settings import ProviderSecrets

RECHECK_S: Final = 1.0
FILES_MAX: Final = 20_000
"""Files, present or not, that are remembered."""
_FILE_BYTES_MAX: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class _Read:
    """What a file held when it was looked at last."""

    secrets: tuple[str, ...] = field(repr=False)
    stamp: tuple[int, int, int]
    checked_s: float


class WebhookSecrets:
    """Looks up secrets. Both names must be checked already: they become parts of a path."""

    def __init__(self, configured: Sequence[ProviderSecrets], directory: Path | None, clock: Clock) -> None:
        self._configured: Mapping[tuple[str, str], tuple[str, ...]] = {
            (each.workspace, each.provider): each.secrets for each in configured
        }
        self._directory = directory
        self._clock = clock
        self._read: dict[tuple[str, str], _Read] = {}

    def of(self, workspace: str, provider: str) -> tuple[str, ...]:
        """The live secrets, newest first, at most 16; those of the directory before those of the settings."""
        key = (workspace, provider)
        configured = self._configured.get(key, ())
        if self._directory is None:
            return configured
        known = self._read.get(key)
        now_s = self._clock.monotonic()
        if known is None or now_s - known.checked_s >= RECHECK_S:
            known = self._look(key, known, now_s)
        return (known.secrets + configured)[:SECRETS_MAX] if known.secrets else configured

    def _look(self, key: tuple[str, str], known: _Read | None, now_s: float) -> _Read:
        assert self._directory is not None
        path = self._directory / key[0] / key[1]
        try:
            status = path.stat()
            stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
            secrets = known.secrets if known is not None and known.stamp == stamp else _secrets_in(path)
        except OSError:
            # Not there, or just being replaced: no secret now, and another look within a second.
            stamp, secrets = (0, 0, 0), ()
        found = _Read(secrets, stamp, now_s)
        if len(self._read) >= FILES_MAX and key not in self._read:
            del self._read[next(iter(self._read))]
        self._read[key] = found
        return found


def _secrets_in(path: Path) -> tuple[str, ...]:
    with path.open(encoding="utf-8", errors="replace") as file:
        lines = file.read(_FILE_BYTES_MAX).splitlines()
    return tuple(line.strip() for line in lines if line.strip() and not line.startswith("#"))[:SECRETS_MAX]
