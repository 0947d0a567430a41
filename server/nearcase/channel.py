"""The connection of a client: how large its messages may be, how it is encrypted, and who asks for which tenant."""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import grpc

from nearcase.errors import InvalidInput

MAX_MESSAGE_BYTES = 64 * 2**20
TENANT_KEY = "nearcase-tenant"


LOOPBACK = "localhost"

Pairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Tls:
    """How the connection is encrypted, by PEM files."""

    ca: Path | None = None
    """Who signed the server's certificate; None takes the authorities of this machine."""
    certificate: Path | None = None
    """Our own, where the server asks for one; with its key."""
    key: Path | None = None


def open_channel(
    address: str, tenant: str = "", *, tls: Tls | None = None, token: str | Path = "", insecure: bool = False
) -> grpc.Channel:
    """Returns a channel that connects when it is first used.

    Args:
        address: HOST:PORT.
        tenant: Sent with each request, for a server that takes a gateway's word for it; "" sends none.
        tls: None encrypts nothing.
        token: Sent with each request; a file is read for each, so that it may be replaced while the channel is open.
        insecure: Send the token though nothing is encrypted and the server is on another machine.

    Raises:
        InvalidInput: A file can not be read, or the token would be readable on its way.
    """
    sizes = [
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ]
    if token and not tls and not insecure and not _is_here(address):
        raise InvalidInput(
            f"the token for {address} would be readable on its way: expected TLS (--tls-ca)", field="tls"
        )
    secured = grpc.secure_channel(address, _credentials(tls), options=sizes) if tls else None
    channel = secured or grpc.insecure_channel(address, options=sizes)
    if not tenant and not token:
        return channel
    fixed: Pairs = ((TENANT_KEY, tenant),) if tenant else ()
    return grpc.intercept_channel(channel, _Metadata(lambda: (*fixed, *_bearer(token))))


def _credentials(tls: Tls) -> grpc.ChannelCredentials:
    if (tls.certificate is None) != (tls.key is None):
        raise InvalidInput("expected a certificate and its key, got one of them", field="tls")
    authorities = _read(tls.ca) if tls.ca else _of_this_machine()
    key, chain = (_read(tls.key) if tls.key else None), (_read(tls.certificate) if tls.certificate else None)
    return grpc.ssl_channel_credentials(authorities, key, chain)


def _of_this_machine() -> bytes | None:
    """None where OpenSSL knows of none; grpc brings its own then."""
    found = ssl.create_default_context().get_ca_certs(binary_form=True)
    return "".join(map(ssl.DER_cert_to_PEM_cert, found)).encode() or None


def _bearer(token: str | Path) -> Pairs:
    text = _read(token).decode("ascii", "replace").strip() if isinstance(token, Path) else token
    if text and not (text.isascii() and text.isprintable() and " " not in text):
        raise InvalidInput("expected a token of one line of ASCII", field="token")
    return (("authorization", f"Bearer {text}"),) if text else ()


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise InvalidInput(f"{file.name} can not be read: {error.strerror}", reason="UNREADABLE_FILE") from None


def _is_here(address: str) -> bool:
    host = address.rpartition(":")[0].strip("[]")
    try:
        return host == LOOPBACK or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class _Details(NamedTuple):
    """What grpc hands an interceptor, with other metadata."""

    method: str
    timeout: float | None
    metadata: tuple[tuple[str, str | bytes], ...]
    credentials: grpc.CallCredentials | None
    wait_for_ready: bool | None
    compression: grpc.Compression | None


class _Metadata(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    """Adds pairs to the metadata of every call, of whichever kind."""

    def __init__(self, pairs: Callable[[], Pairs]) -> None:
        self._pairs = pairs

    def _asked(self, call: Callable[[Any, Any], Any], details: Any, request: Any) -> Any:
        metadata = (*(details.metadata or ()), *self._pairs())
        rest = (details.credentials, details.wait_for_ready, details.compression)
        return call(_Details(details.method, details.timeout, metadata, *rest), request)

    def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        """One request, one answer."""
        return self._asked(continuation, client_call_details, request)

    def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        """One request, several answers."""
        return self._asked(continuation, client_call_details, request)

    def intercept_stream_unary(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        """Several requests, one answer."""
        return self._asked(continuation, client_call_details, request_iterator)

    def intercept_stream_stream(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        """Several of both."""
        return self._asked(continuation, client_call_details, request_iterator)
