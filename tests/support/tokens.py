"""Tokens for tests, minted with the system's own key."""

from relayfile.auth import ALL, EVERY_SCOPE, KeyStore, Principal, TokenSigner
from relayfile.clock import Clock, SystemClock
from relayfile.local.layout import Layout

TTL_S = 3600.0
EVERYBODY = Principal(subject="test", workspaces=frozenset({ALL}), scopes=(EVERY_SCOPE,), expires_at_us=1 << 60)
"""A caller for tests that call servicers without a server: `set_current_principal(EVERYBODY)`."""


def mint(
    layout: Layout,
    *,
    workspaces: str | tuple[str, ...] = ALL,
    subject: str = "test",
    ttl_s: float = TTL_S,
    scopes: tuple[str, ...] = (EVERY_SCOPE,),
    service: str = "",
    clock: Clock | None = None,
) -> str:
    """A token of the system in `layout`; by default for everything in all workspaces, and an hour."""
    signer = TokenSigner(KeyStore(layout.keys).signing_key(), clock or SystemClock())
    return signer.mint(subject, workspaces=workspaces, ttl_s=ttl_s, scopes=scopes, service=service)
