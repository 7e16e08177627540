"""Where a client's token comes from."""

from pathlib import Path
from typing import Protocol


class TokenSource(Protocol):
    """Gives the token for the next call. `renew` asks for another one, after a call was refused with the last."""

    async def token(self, *, renew: bool) -> str: ...


class FixedToken:
    """The same token for ever."""

    def __init__(self, token: str) -> None:
        self._token = token

    async def token(self, *, renew: bool) -> str:
        return self._token


class TokenFile:
    """A file that somebody keeps fresh, such as a mounted Kubernetes token. Read again when a call was refused."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._token = ""

    async def token(self, *, renew: bool) -> str:
        """`OSError` when the file cannot be read."""
        if renew or not self._token:
            self._token = self._path.read_text().strip()
        return self._token
