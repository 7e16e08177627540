"""A certificate authority of a test's own, and certificates with any names, in files."""

import datetime as dt
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

_LOOPBACK = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """Where one process's certificate, its key and the authority that it trusts are."""

    cert: Path
    key: Path
    ca: Path

    def environment(self) -> Mapping[str, str]:
        """The variables of a process that shows this certificate and asks callers for one."""
        return {
            "RELAYFILE_TLS_CERT_FILE": str(self.cert),
            "RELAYFILE_TLS_KEY_FILE": str(self.key),
            "RELAYFILE_TLS_CA_FILE": str(self.ca),
        }


class Authority:
    """Issues certificates for loopback into files of `folder`, valid for a day."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        made = _begun(self._name, self._name, self._key).add_extension(x509.BasicConstraints(True, 0), critical=True)
        self.ca = folder / f"{name}.pem"
        self.ca.write_bytes(made.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))

    def issue(
        self, common_name: str, *, dns: tuple[str, ...] = (), uris: tuple[str, ...] = (), emails: tuple[str, ...] = ()
    ) -> CertificateFiles:
        """A certificate with these names besides the address of loopback."""
        names: list[x509.GeneralName] = [_LOOPBACK, *map(x509.DNSName, dns)]
        names += [*map(x509.UniformResourceIdentifier, uris), *map(x509.RFC822Name, emails)]
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)])
        made = _begun(subject, self._name, key).add_extension(x509.SubjectAlternativeName(names), critical=False)
        files = CertificateFiles(self._folder / f"{common_name}.pem", self._folder / f"{common_name}.key", self.ca)
        signed = made.sign(self._key, hashes.SHA256())
        files.cert.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
        files.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return files


def _begun(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=1))
    )
