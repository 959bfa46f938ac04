"""Certificate authorities, servers' and clients' certificates, made on the spot."""

import datetime as dt
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import grpc
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

DAY = dt.timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pem:
    """A certificate with those that signed it, and its key."""

    cert: bytes
    key: bytes

    def write(self, cert_file: Path, key_file: Path) -> None:
        cert_file.write_bytes(self.cert)
        key_file.write_bytes(self.key)


class Authority:
    """Signs certificates; whoever trusts `pem` accepts them."""

    def __init__(self) -> None:
        self._ca = trustme.CA()
        self.pem = self._ca.cert_pem.bytes()

    def server(self) -> Pem:
        """For this machine."""
        return self.named("localhost", "127.0.0.1")

    def named(self, *names: str, **times: dt.datetime) -> Pem:
        """With DNS names or addresses."""
        leaf = self._ca.issue_cert(*names, **times)
        return Pem(cert=b"".join(blob.bytes() for blob in leaf.cert_chain_pems), key=leaf.private_key_pem.bytes())

    def expired(self, name: str) -> Pem:
        now = dt.datetime.now(dt.UTC)
        return self.named(name, not_before=now - 2 * DAY, not_after=now - DAY)

    def spiffe(self, uri: str, common_name: str = "") -> Pem:
        """With a URI as SPIFFE has them, which trustme does not make."""
        now = dt.datetime.now(dt.UTC)
        issuer = x509.load_pem_x509_certificate(self.pem)
        issuer_key = serialization.load_pem_private_key(self._ca.private_key_pem.bytes(), password=None)
        key = ec.generate_private_key(ec.SECP256R1())
        names = [x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)] if common_name else []
        certificate = (
            x509.CertificateBuilder(issuer.subject, x509.Name(names), key.public_key(), x509.random_serial_number())
            .not_valid_before(now - DAY)
            .not_valid_after(now + DAY)
            .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)]), critical=not names)
            .sign(issuer_key, hashes.SHA256())
        )
        return Pem(
            cert=certificate.public_bytes(serialization.Encoding.PEM),
            key=key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            ),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """What a gateway's flags name."""

    cert: Path
    key: Path
    client_ca: Path

    @classmethod
    def written(cls, folder: Path, server: Pem, client_ca: bytes = b"") -> Self:
        found = cls(cert=folder / "tls.crt", key=folder / "tls.key", client_ca=folder / "clients.crt")
        server.write(found.cert, found.key)
        if client_ca:
            found.client_ca.write_bytes(client_ca)
        return found

    @property
    def options(self) -> list[str]:
        ca = ["--tls-client-ca", str(self.client_ca)] if self.client_ca.exists() else []
        return ["--tls-cert", str(self.cert), "--tls-key", str(self.key), *ca]


def channel_credentials(trusted: bytes, client: Pem | None = None) -> grpc.ChannelCredentials:
    if client is None:
        return grpc.ssl_channel_credentials(trusted)
    return grpc.ssl_channel_credentials(trusted, client.key, client.cert)


def served_certificate(address: str) -> str:
    """What a new handshake shows, as PEM, whoever has signed it."""
    host, _, port = address.rpartition(":")
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with socket.create_connection((host, int(port))) as plain, context.wrap_socket(plain) as secured:
        return ssl.DER_cert_to_PEM_cert(secured.getpeercert(binary_form=True))
