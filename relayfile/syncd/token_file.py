"""A mirror's own token: in a file that somebody else renews, read again as soon as it changes."""

import base64
import binascii
import json
from pathlib import Path

from relayfile.errors import Unavailable

_Version = tuple[int, int, int, int]


class TokenFile:
    """One file. A look at its stat before each call tells whether it is the one that was read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._version: _Version | None = None
        self._token = ""

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What to show on a call; ``Unavailable`` when the file cannot be read: it may be back in a moment."""
        return (("authorization", f"Bearer {self.token()}"),)

    def token(self) -> str:
        """As the file has it now."""
        try:
            found = self._path.stat()
            version = (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
            if version != self._version:
                self._token = self._path.read_text().strip()
                self._version = version
        except (OSError, UnicodeDecodeError) as error:
            raise Unavailable(what=f"token in {self._path} ({error})") from error
        return self._token

    def expire_time_us(self) -> int:
        """When the token says that it ends; 0 when it does not say, or cannot be read."""
        try:
            return expire_time_us(self.token())
        except Unavailable:
            return 0


def expire_time_us(token: str) -> int:
    """The claim `exp` in microseconds, not verified: it is shown, and decides nothing."""
    parts = token.split(".")
    if len(parts) != 3:
        return 0
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (binascii.Error, ValueError):
        return 0
    expires = claims.get("exp") if isinstance(claims, dict) else None
    if isinstance(expires, bool) or not isinstance(expires, int | float) or not 0 < expires < 1e11:
        return 0
    return round(expires * 1_000_000)
