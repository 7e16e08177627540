"""Page tokens: a position that is bound to the request it came from.

A token is a digest of the request's arguments (of a workspace's data its history too) and the position, followed by the
position. It survives a restart; changed, or shown with other arguments, it is refused. It guards against mistakes, not
against a forger: it grants nothing that the call itself would not. Where the position may name what rules hide from the
caller, `SealedTokens` encrypts it as well.
"""

import base64
import binascii
import hashlib
import secrets
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from relayfile.errors import PageTokenInvalid

_DIGEST_BYTES = 16
_KEY_BYTES = 32
_PAD = b"\0"
"""Stands in no path and no id."""
_STEP_BYTES = 64


def seal(binding: Sequence[str], position: str) -> str:
    """A token for `position` in answers to a request with the arguments `binding`, its method first."""
    raw = position.encode()
    return _encode(_digest(binding, raw) + raw)


def unseal(binding: Sequence[str], token: str) -> str:
    """The position of a token that was made with the same binding; empty for an empty token."""
    if not token:
        return ""
    try:
        raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        digest, position = raw[:_DIGEST_BYTES], raw[_DIGEST_BYTES:]
        text = position.decode()
    except (binascii.Error, ValueError):
        raise PageTokenInvalid(why="it is not a token of this service") from None
    if digest != _digest(binding, position) or token != _encode(raw):
        raise PageTokenInvalid(why="it was changed, or belongs to a request with other arguments")
    return text


class SealedTokens:
    """Tokens that tell their holder nothing: the same position gives the same token, of a length in steps."""

    def __init__(self, key: bytes = b"") -> None:
        """`key`: 32 secret bytes, the same after a restart; empty: one that ends with the process."""
        self._cipher = AESSIV(key or secrets.token_bytes(_KEY_BYTES))

    def seal(self, binding: Sequence[str], position: str) -> str:
        """As `seal`."""
        raw = position.encode()
        padded = raw + _PAD * (-len(raw) % _STEP_BYTES)
        return _encode(self._cipher.encrypt(padded, [_digest(binding, b"")]))

    def unseal(self, binding: Sequence[str], token: str) -> str:
        """As `unseal`."""
        if not token:
            return ""
        try:
            raw = _decode(token)
            return self._cipher.decrypt(raw, [_digest(binding, b"")]).rstrip(_PAD).decode()
        except (binascii.Error, ValueError):
            raise PageTokenInvalid(why="it is not a token of this service") from None
        except InvalidTag:
            raise PageTokenInvalid(why="it was changed, or belongs to a request with other arguments") from None


def _decode(token: str) -> bytes:
    """`ValueError` for what `_encode` does not make."""
    raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
    if token != _encode(raw):
        raise ValueError("bits beyond the last byte")
    return raw


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _digest(binding: Sequence[str], position: bytes) -> bytes:
    state = hashlib.sha256()
    for part in (*(each.encode() for each in binding), position):
        state.update(len(part).to_bytes(8, "big"))
        state.update(part)
    return state.digest()[:_DIGEST_BYTES]
