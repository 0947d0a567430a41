"""The server's certificate and key, and the authority of its clients' certificates; read again when they change.

grpc asks for them at each handshake, in a thread of its own: new connections get new files at once, those that are
open stay, and nothing stops. TLS is 1.2 or 1.3, which is the least that grpc speaks.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, cast

import grpc
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from nearcase.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

log = logging.getLogger(__name__)

MAX_CONNECTION_MS = 3_600_000
"""A connection is closed after an hour, when its calls have ended: a certificate that was withdrawn, by a new client
authority, has no longer a life."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files of a server."""

    certificate: Path
    key: Path
    client_ca: Path | None = None
    """Clients must show a certificate that it signed."""


class Credentials:
    """Reads the files now, and whenever they changed.

    Raises:
        InvalidInput: One can not be read, or the key is not the certificate's.
    """

    def __init__(self, files: TlsFiles) -> None:
        self._files, self._lock = files, Lock()
        self._stamp = _stamp(files)
        self._first = read(files)

    def for_server(self) -> grpc.ServerCredentials:
        """Returns what a port is opened with."""
        needs = self._files.client_ca is not None
        changed = cast("Callable[[], grpc.ServerCertificateConfiguration]", self._changed)  # None is not in the stub
        return grpc.dynamic_ssl_server_credentials(self._first, changed, require_client_authentication=needs)

    def _changed(self) -> grpc.ServerCertificateConfiguration | None:
        """None keeps what is in use; an exception here would end the handshake, and every other."""
        with self._lock:
            stamp = _stamp(self._files)
            if stamp == self._stamp:
                return None
            self._stamp = stamp  # also of what is refused: half of a change may be written, and the rest follow
            try:
                found = read(self._files)
            except InvalidInput as error:
                log.error("the changed TLS files are not used, those before them stay: %s", error)
                return None
        log.warning("the TLS files changed, and new connections use them")
        return found


def read(files: TlsFiles) -> grpc.ServerCertificateConfiguration:
    """Returns the files' contents once they were found to belong together.

    Raises:
        InvalidInput: They do not; the message names the file and holds nothing of it.
    """
    chain, key = _bytes(files.certificate), _bytes(files.key)
    authority = _bytes(files.client_ca) if files.client_ca else None
    shown = _certificates(files.certificate, chain)[0]
    if authority is not None and files.client_ca:
        _certificates(files.client_ca, authority)
    try:
        private = load_pem_private_key(key, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise InvalidInput(f"{files.key.name} is no PEM private key without a password", field="tls.key") from None
    kind = Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    if private.public_key().public_bytes(*kind) != shown.public_key().public_bytes(*kind):
        raise InvalidInput(f"{files.key.name} is not the key of {files.certificate.name}", field="tls.key")
    return grpc.ssl_server_certificate_configuration([(key, chain)], root_certificates=authority)


def _certificates(file: Path, pem: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError:
        raise InvalidInput(f"{file.name} holds no PEM certificate", field="tls") from None


def _bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise InvalidInput(f"{file.name} can not be read: {error.strerror}", field="tls") from None


def _stamp(files: TlsFiles) -> tuple[object, ...]:
    return tuple(_status(file) for file in (files.certificate, files.key, files.client_ca) if file)


def _status(file: Path) -> tuple[int, int, int] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
