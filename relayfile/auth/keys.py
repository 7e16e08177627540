"""Keys on disk: the signing key that a system makes for itself, and the public keys that tokens are checked with.

``signing.jwk`` (EdDSA, private, mode 0600) is made on first use, completely written before it has its name, so that
processes that start together agree on one key. ``jwks.json`` holds the public half and may be given to other verifiers.
"""

import json
import os
import secrets
from pathlib import Path
from typing import Any, cast

from joserfc.errors import JoseError
from joserfc.jwk import KeySet, OKPKey

from relayfile.errors import StartRefused

SIGNING_FILE = "signing.jwk"
PUBLIC_FILE = "jwks.json"
ALGORITHM = "EdDSA"
KEYS_MAX = 100
_WAY_OUT = f"bring it back, or remove it and {PUBLIC_FILE} for new ones"


class KeyStore:
    """The keys directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @property
    def public_file(self) -> Path:
        """The JWKS of the public keys."""
        return self.directory / PUBLIC_FILE

    def signing_key(self) -> OKPKey:
        """The private key; made, with its public file, when there is none."""
        path = self.directory / SIGNING_FILE
        if not path.exists():
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            _write_once(path, json.dumps(_new_key().as_dict(private=True)), 0o600)
        key = _read_private(path)
        if not self.public_file.exists():
            public = {"keys": [key.as_dict(private=False)]}
            _write_once(self.public_file, json.dumps(public, indent=1), 0o644)
        return key


def read_public_keys(path: Path) -> KeySet:
    """The key set in a JWKS file. ``StartRefused`` when it cannot be read."""
    try:
        return keys_in(path.read_bytes(), str(path))
    except OSError as error:
        raise StartRefused(why=f"the public keys in {path} cannot be read ({error})") from error


def keys_in(document: bytes, where: str) -> KeySet:
    """The public keys of a JWKS. ``StartRefused`` when it is none."""
    try:
        content = json.loads(document)
        if not isinstance(content, dict) or not content.get("keys"):
            raise StartRefused(why=f"{where} holds no public keys (a JWKS is expected)")
        if len(content["keys"]) > KEYS_MAX:
            raise StartRefused(why=f"{where} holds more than {KEYS_MAX} keys")
        if any(key.get("kty") == "oct" or not key.get("kid") for key in content["keys"]):
            raise StartRefused(why=f"{where} holds a key without kid, or a shared secret, which cannot verify tokens")
        return KeySet.import_key_set(cast(Any, content))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, JoseError) as error:
        raise StartRefused(why=f"the public keys in {where} cannot be read ({error})") from error


def _new_key() -> OKPKey:
    key = OKPKey.generate_key("Ed25519", {"use": "sig", "alg": ALGORITHM})
    parameters = {**key.as_dict(private=True), "kid": key.thumbprint()}
    return OKPKey.import_key(cast(Any, parameters))


def _read_private(path: Path) -> OKPKey:
    try:
        key = OKPKey.import_key(json.loads(path.read_bytes()))
    except (OSError, ValueError, KeyError, JoseError) as error:
        raise StartRefused(why=f"the signing key {path} cannot be read ({type(error).__name__}); {_WAY_OUT}") from None
    if not key.is_private or not key.kid:
        raise StartRefused(why=f"the signing key {path} is no private key with a kid; {_WAY_OUT}")
    return key


def _write_once(path: Path, content: str, mode: int) -> None:
    """Give ``path`` this content unless another process was first; durable, and never seen half-written."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(draft, path)
        except FileExistsError:
            return  # another process was first; its content is the one
    finally:
        draft.unlink(missing_ok=True)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
