"""The service identity that a certificate gives: which names say that a caller is a process of this cluster (mTLS).

Owns the reading of what gRPC tells about a connection's certificate. That certificate was verified at the handshake
against the authority in `RELAYFILE_TLS_CA_FILE`, or there would be no connection. Only the DNS and URI names of its
subject alternative name count; common names and addresses name no process.
"""

from collections.abc import Iterable, Mapping

from relayfile.auth.principal import ALL, Principal
from relayfile.auth.tokens import EVERY_SCOPE

NAME_PROPERTIES = ("peer_dns", "peer_uri")
"""What gRPC calls the DNS and the URI names of a verified certificate. Absent on connections without one."""
_NEVER_US = (1 << 63) - 1


def certificate_principal(properties: Mapping[str, Iterable[bytes]], service_names: frozenset[str]) -> Principal | None:
    """Who calls, by the certificate alone; None: it is nobody of the cluster, or there is no certificate.

    `properties` are those of `ServicerContext.auth_context()`. The handshake has looked at the certificate's time: the
    connection counts until it ends, as gRPC itself has it.
    """
    if not service_names:
        return None
    for each in NAME_PROPERTIES:
        for raw in properties.get(each) or ():
            name = raw.decode(errors="replace")
            if _comparable(name) in service_names:
                return Principal(
                    subject=name,
                    workspaces=frozenset({ALL}),
                    scopes=(EVERY_SCOPE,),
                    service=name,
                    expires_at_us=_NEVER_US,
                )
    return None


def _comparable(name: str) -> str:
    """DNS names are compared without case, URIs as they are."""
    return name if "://" in name else name.lower()
