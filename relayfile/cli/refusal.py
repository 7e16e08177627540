"""What a reason in `relayfile rejected` means for a person, and the way out of it."""

from collections.abc import Iterable, Mapping

WAYS_OUT: Mapping[str, str] = {
    "SECRET_MISSING": "no secret of this workspace and provider: put it into <secrets>/<workspace>/<provider>",
    "SIGNATURE_MISSING": "the header of the signature is not there: set the secret at the sender; is it that provider?",
    "SIGNATURE_MALFORMED": "the header does not read as that provider's signature: is it that provider?",
    "SIGNATURE_MISMATCH": "signed with another secret, or body or URL changed on the way: compare the secrets; "
    "where the URL is signed set RELAYFILE_PUBLIC_URL",
    "TIMESTAMP_MISSING": "the signed time is not there: is it that provider?",
    "TIMESTAMP_MALFORMED": "the signed time is no number: is it that provider?",
    "TIMESTAMP_STALE": "signed too long ago, or by a clock ahead of ours: compare the clocks; "
    "RELAYFILE_SIGNATURE_TOLERANCE is the limit",
    "HANDSHAKE_NOT_AWAITED": "a secret was offered and nobody waited for it: relayfile providers await, then again",
    "UNAUTHENTICATED": "no token, or one that is wrong or too old: relayfile token makes one",
    "PERMISSION_DENIED": "the token does not grant this workspace: relayfile token --workspace",
    "PROVIDER_NOT_FOUND": "no provider of that name: relayfile providers list",
    "APP_NOT_FOUND": "no app of that name: RELAYFILE_APPS names them",
    "WORKSPACE_NOT_FOUND": "no such workspace: relayfile workspaces create, or RELAYFILE_CREATE_WORKSPACES",
    "NOT_FOUND": "no such URL: /v1/workspaces/<workspace>/webhooks/<provider> is one",
    "METHOD_NOT_ALLOWED": "webhooks are sent with POST",
    "TOO_LARGE": "larger than RELAYFILE_BODY_BYTES_MAX or RELAYFILE_CONTENT_BYTES_MAX",
    "OVERLOADED": "this sender is past its share while the store is behind: it may repeat; see relayfile status",
    "UNAVAILABLE": "not possible at that moment: the sender may repeat; see relayfile status",
}


def explained(reasons: Iterable[str]) -> str:
    """One line for each different reason that has a way out, in the order of first sight."""
    known = [reason for reason in dict.fromkeys(reasons) if reason in WAYS_OUT]
    width = max(map(len, known), default=0)
    return "\n".join(f"{reason:<{width}}  {WAYS_OUT[reason]}" for reason in known)
