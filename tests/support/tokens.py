"""Tokens for tests, minted with the system's own key."""

from relayfile.auth import ALL, KeyStore, TokenSigner
from relayfile.clock import Clock, SystemClock
from relayfile.local.layout import Layout

TTL_S = 3600.0


def mint(
    layout: Layout,
    *,
    workspaces: str | tuple[str, ...] = ALL,
    subject: str = "test",
    ttl_s: float = TTL_S,
    service: str = "",
    clock: Clock | None = None,
) -> str:
    """A token of the system in `layout`; by default for all workspaces and an hour."""
    signer = TokenSigner(KeyStore(layout.keys).signing_key(), clock or SystemClock())
    return signer.mint(subject, workspaces=workspaces, ttl_s=ttl_s, service=service)
