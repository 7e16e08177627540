"""Who calls and what they may reach: keys, tokens, the table of requirements, and the stage that enforces them.

From a token to a ``Principal`` (audience, expiry, signature), from an RPC to a ``Requirement``, from a principal's
scopes to what they grant, from the rules of files to what they decide. Which rows of a workspace a caller sees is
decided with these where the rows are, in ``relayfile.store.access``.
"""

from relayfile.auth.certificates import certificate_principal
from relayfile.auth.fetched_keys import FetchedKeys
from relayfile.auth.key_url import KeyUrl
from relayfile.auth.keys import KeyStore
from relayfile.auth.principal import (
    ALL,
    Principal,
    authorise_workspace,
    current_principal,
    set_current_principal,
)
from relayfile.auth.rate_stage import rate_stage
from relayfile.auth.rates import RateLimits, Rates
from relayfile.auth.requirements import PUBLISH_SCOPE, REQUIREMENTS, Reach, Requirement, require_entries
from relayfile.auth.stage import auth_stage, bearer_token, require_scope
from relayfile.auth.tokens import EVERY_SCOPE, ServiceCredentials, TokenSigner, TokenVerifier

__all__ = [
    "ALL",
    "EVERY_SCOPE",
    "PUBLISH_SCOPE",
    "REQUIREMENTS",
    "FetchedKeys",
    "KeyStore",
    "KeyUrl",
    "Principal",
    "RateLimits",
    "Rates",
    "Reach",
    "Requirement",
    "ServiceCredentials",
    "TokenSigner",
    "TokenVerifier",
    "auth_stage",
    "authorise_workspace",
    "bearer_token",
    "certificate_principal",
    "current_principal",
    "rate_stage",
    "require_entries",
    "require_scope",
    "set_current_principal",
]
