"""The server's side of TLS: its certificate, whose certificates it asks of clients, and how both are replaced."""

import ssl
from collections.abc import Sequence
from pathlib import Path

import grpc

from runtime.errors import SettingError


class ServerTls:
    """Certificates that may be replaced while the server runs; connections that are open keep theirs."""

    def __init__(self, *, cert: Path, key: Path, client_ca: Path | None) -> None:
        self.paths = (cert, key, client_ca) if client_ca else (cert, key)
        self._cert, self._key, self._client_ca = cert, key, client_ca
        self._current: grpc.ServerCertificateConfiguration
        self._given: grpc.ServerCertificateConfiguration

    def apply(self, contents: Sequence[bytes]) -> None:
        """Use the contents of `paths` for new connections. Raises SettingError."""
        self._check_pair()
        if self._client_ca:
            self._check_authorities(self._client_ca)
        cert, key, *client_ca = contents
        self._current = grpc.ssl_server_certificate_configuration(
            [(key, cert)], root_certificates=client_ca[0] if client_ca else None
        )

    def credentials(self) -> grpc.ServerCredentials:
        """For a server's port, after the first `apply`."""
        self._given = self._current
        return grpc.dynamic_ssl_server_credentials(
            self._current,
            self._changed,  # type: ignore[arg-type]  # the stubs forget None
            require_client_authentication=self._client_ca is not None,
        )

    def _changed(self) -> grpc.ServerCertificateConfiguration | None:
        """None where gRPC has the current one. It asks before every handshake, from a thread of its own."""
        current = self._current
        if current is self._given:
            return None
        self._given = current
        return current

    # gRPC tells nobody what it cannot use, so OpenSSL looks first. It reads the files once more: where they change in
    # between, gRPC keeps what it has, and the next look finds the change.

    def _check_pair(self) -> None:
        try:
            # An empty password, or OpenSSL would ask for an encrypted key's on the terminal.
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self._cert, self._key, password="")
        except (ssl.SSLError, OSError) as error:
            raise SettingError(f"--tls-cert {self._cert}, --tls-key {self._key}: {_reason(error)}") from error

    def _check_authorities(self, client_ca: Path) -> None:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(client_ca)
        except (ssl.SSLError, OSError) as error:
            raise SettingError(f"--tls-client-ca {client_ca}: {_reason(error)}") from error


def _reason(error: OSError) -> str:
    """`KEY_VALUES_MISMATCH`; or no more than that where OpenSSL does not say."""
    return (getattr(error, "reason", None) or error.strerror or "").strip() or "cannot be read as PEM"
