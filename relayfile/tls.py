"""TLS of gRPC: what a server shows and asks for, and what a channel shows and trusts.

Owns reading the files, and that a server takes replaced ones at the next handshake. Without the settings connections
are not encrypted: that is for one machine, and for meshes that encrypt by themselves.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import grpc

from relayfile.errors import SettingError


class TlsSettings(Protocol):
    """The settings that say where certificates are."""

    @property
    def tls_cert_file(self) -> Path | None: ...

    @property
    def tls_key_file(self) -> Path | None: ...

    @property
    def tls_ca_file(self) -> Path | None: ...


@dataclass(frozen=True, slots=True)
class _Files:
    """What the files held when they were read."""

    cert: bytes
    key: bytes
    ca: bytes | None

    def configuration(self) -> grpc.ServerCertificateConfiguration:
        return grpc.ssl_server_certificate_configuration([(self.key, self.cert)], root_certificates=self.ca)


def server_credentials(settings: TlsSettings) -> grpc.ServerCredentials | None:
    """What a server needs; None: it does not encrypt. `SettingError` when the files cannot be used.

    With a certificate authority only callers with a certificate of it are let in (mTLS); their tokens count besides.
    """
    files = _read(settings)
    if files is None:
        return None
    held = [files]

    def renewed() -> grpc.ServerCertificateConfiguration | None:
        # Called by gRPC at a handshake: files that are being replaced, or are broken, leave the present ones in force.
        try:
            found = _read(settings)
        except SettingError:
            return None
        if found is None or found == held[0]:
            return None
        held[0] = found
        return found.configuration()

    return grpc.dynamic_ssl_server_credentials(
        files.configuration(),
        renewed,  # type: ignore[arg-type]  # gRPC takes None for "as before", which its types do not say
        require_client_authentication=files.ca is not None,
    )


def channel_credentials(settings: TlsSettings) -> grpc.ChannelCredentials | None:
    """What a channel to a process of ours needs; None: it does not encrypt. `SettingError` as above.

    A certificate authority alone is enough for a client: it verifies the server and shows no certificate.
    """
    if settings.tls_ca_file is None and settings.tls_cert_file is None:
        return None
    files = _read(settings) if settings.tls_cert_file is not None else None
    ca = None if settings.tls_ca_file is None else _content("RELAYFILE_TLS_CA_FILE", settings.tls_ca_file)
    if files is None:
        return grpc.ssl_channel_credentials(root_certificates=ca)
    return grpc.ssl_channel_credentials(root_certificates=ca, private_key=files.key, certificate_chain=files.cert)


def _read(settings: TlsSettings) -> _Files | None:
    cert, key, ca = settings.tls_cert_file, settings.tls_key_file, settings.tls_ca_file
    if cert is None and key is None:
        return None
    if cert is None or key is None:
        missing = "RELAYFILE_TLS_CERT_FILE" if cert is None else "RELAYFILE_TLS_KEY_FILE"
        raise SettingError(
            variable=missing, problem="is not set, but the other one is", way_out="set both, or none of them"
        )
    return _Files(
        _content("RELAYFILE_TLS_CERT_FILE", cert),
        _content("RELAYFILE_TLS_KEY_FILE", key),
        None if ca is None else _content("RELAYFILE_TLS_CA_FILE", ca),
    )


def _content(variable: str, path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SettingError(variable=variable, problem=f"cannot be read: {error}", way_out="name a file") from error
    if b"-----BEGIN " not in content:
        raise SettingError(variable=variable, problem=f"names {path}, which is not PEM", way_out="name a PEM file")
    return content
