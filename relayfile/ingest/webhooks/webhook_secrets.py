"""The live secrets of senders, by workspace and provider: from the settings, and from a directory that may change.

Owns noticing within a second that `<directory>/<workspace>/<provider>` was replaced, so that a secret can be rotated
without a restart, and taking over the secret that an awaited handshake brings. Refuses to log or show a secret.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from relayfile.clock import Clock
from relayfile.errors import Unavailable
from relayfile.ingest.webhooks import secret_file
from relayfile.ingest.webhooks.secret_file import HandshakeRefused, SecretFile, SecretsFull
from relayfile.ingest.webhooks.signature import SECRETS_MAX
from relayfile.settings import ProviderSecrets
from relayfile.telemetry import get_logger

RECHECK_S: Final = 1.0
FILES_MAX: Final = 20_000
"""Files, present or not, that are remembered."""
_NOTHING: Final = SecretFile()
_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Read:
    """What a file held when it was looked at last."""

    file: SecretFile
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
        secrets = self._file(key).secrets
        return (secrets + configured)[:SECRETS_MAX] if secrets else configured

    def awaits_handshake(self, workspace: str, provider: str) -> bool:
        """Whether an operator opened the window in which an unsigned handshake may bring a secret."""
        if self._directory is None:
            return False
        until_us = self._file((workspace, provider)).awaits_until_us
        return bool(until_us) and self._clock.now_us() < until_us

    async def take_over(self, workspace: str, provider: str, secret: str) -> None:
        """Keep the secret of a handshake durably and end the wait; it is live here at once, elsewhere in a second.

        `HandshakeRefused`; `Unavailable` when the file cannot be replaced, with the reason in the log.
        """
        if self._directory is None:
            raise HandshakeRefused("HANDSHAKE_NOT_AWAITED")
        now_us = self._clock.now_us()
        try:
            await asyncio.to_thread(secret_file.take_over, self._directory, workspace, provider, secret, now_us)
        except (OSError, SecretsFull) as error:
            why = f"{SECRETS_MAX} are live already; remove one" if isinstance(error, SecretsFull) else str(error)
            _log.error("a handshake's secret cannot be stored", workspace=workspace, provider=provider, why=why)
            raise Unavailable(what="directory of webhook secrets", retry_after_s=60.0) from None
        finally:
            self._read.pop((workspace, provider), None)
        _log.info("a handshake brought a new secret", workspace=workspace, provider=provider)

    def _file(self, key: tuple[str, str]) -> SecretFile:
        known = self._read.get(key)
        now_s = self._clock.monotonic()
        if known is None or now_s - known.checked_s >= RECHECK_S:
            known = self._look(key, known, now_s)
        return known.file

    def _look(self, key: tuple[str, str], known: _Read | None, now_s: float) -> _Read:
        assert self._directory is not None
        path = self._directory / key[0] / key[1]
        try:
            status = path.stat()
            stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
            file = known.file if known is not None and known.stamp == stamp else secret_file.read(path)
        except OSError:
            # Not there, or just being replaced: no secret now, and another look within a second.
            stamp, file = (0, 0, 0), _NOTHING
        found = _Read(file, stamp, now_s)
        if len(self._read) >= FILES_MAX and key not in self._read:
            del self._read[next(iter(self._read))]
        self._read[key] = found
        return found
