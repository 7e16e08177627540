"""Who calls and what they may reach: keys, tokens, the table of requirements, and the stage that enforces them.

From a token to a ``Principal`` (audience, expiry, signature), from an RPC to a ``Requirement``. Scopes and the rules of
files are decided elsewhere, with the principal's scopes and the requirement's action.
"""

from relayfile.auth.keys import KeyStore
from relayfile.auth.principal import (
    ALL,
    Principal,
    authorise_workspace,
    current_principal,
    set_current_principal,
)
from relayfile.auth.requirements import REQUIREMENTS, Reach, Requirement, require_entries
from relayfile.auth.stage import auth_stage, bearer_token
from relayfile.auth.tokens import ServiceCredentials, TokenSigner, TokenVerifier

__all__ = [
    "ALL",
    "REQUIREMENTS",
    "KeyStore",
    "Principal",
    "Reach",
    "Requirement",
    "ServiceCredentials",
    "TokenSigner",
    "TokenVerifier",
    "auth_stage",
    "authorise_workspace",
    "bearer_token",
    "current_principal",
    "require_entries",
    "set_current_principal",
]
