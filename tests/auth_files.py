"""Certificates, keys, tokens and callers files for tests, and a token provider."""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import hashlib
import hmac
import ipaddress
import json
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import NameOID

ISSUER, AUDIENCE = "https://login.example", "nearcase"
NOW_S = 1_900_000_000.0


@dataclass
class HandClock:
    """Shows what it is set to."""

    wall_s: float = NOW_S
    run_s: float = 1000.0

    def now_s(self) -> float:
        return self.wall_s

    def monotonic_s(self) -> float:
        return self.run_s


def pem_of(private: Any) -> bytes:
    """The private key."""
    return bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def public_pem(private: Any) -> bytes:
    return bytes(private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


def rsa_key(bits: int = 2048) -> RSAPrivateKey:
    return generate_private_key(65537, bits)


def jwk(private: Any, name: str, **more: object) -> dict[str, Any]:
    """The public half, as a provider lists it."""
    kind = jwt.algorithms.RSAAlgorithm if isinstance(private, RSAPrivateKey) else jwt.algorithms.ECAlgorithm
    return {**kind.to_jwk(private.public_key(), as_dict=True), "kid": name, **more}


def claims(now_s: float, **changed: object) -> dict[str, Any]:
    """Claims that are right at a time; None takes one away."""
    right: dict[str, object] = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "pacs",
        "iat": int(now_s),
        "nbf": int(now_s),
        "exp": int(now_s + 600),
        "roles": ["search"],
        "tenant": "north",
    }
    return {key: value for key, value in (right | changed).items() if value is not None}


def token(private: Any, payload: Mapping[str, Any], name: str = "k1", algorithm: str = "RS256", **header: Any) -> str:
    return jwt.encode(dict(payload), private, algorithm=algorithm, headers={"kid": name, **header})


def forged(payload: Mapping[str, Any], algorithm: str, secret: bytes = b"", name: str = "k1") -> str:
    """A token signed by hand: `none`, or HS256 with what may be known to all, which libraries refuse to make."""
    parts = [
        base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=")
        for part in ({"alg": algorithm, "typ": "JWT", "kid": name}, payload)
    ]
    text = b".".join(parts)
    mark = hmac.new(secret, text, hashlib.sha256).digest() if secret else b"\0"
    return (text + b"." + base64.urlsafe_b64encode(mark).rstrip(b"=")).decode()


# Certificates


@dataclass(frozen=True)
class Authority:
    """Signs certificates."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    def sign(self, common: str, *names: x509.GeneralName, days: float = 1.0) -> tuple[bytes, bytes]:
        """A certificate and its key, in PEM; one of the server has the addresses of this machine among its names."""
        key = ec.generate_private_key(ec.SECP256R1())
        made = _certificate(common, key, self.certificate.subject, self.key, names, is_ca=False, days=days)
        return made.public_bytes(Encoding.PEM), pem_of(key)


HERE = (x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1")))


def authority(name: str) -> Authority:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    return Authority(key, _certificate(name, key, subject, key, (), is_ca=True, days=2))


def _certificate(
    common: str,
    key: Any,
    issuer: x509.Name,
    signer: Any,
    names: tuple[x509.GeneralName, ...],
    *,
    is_ca: bool,
    days: float,
) -> x509.Certificate:
    now = dt.datetime.now(dt.UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=3))
        .not_valid_after(now + dt.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
    )
    if names:
        made = made.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return made.sign(signer, hashes.SHA256())


def write_tls(folder: Path, of: Authority) -> None:
    """The server's certificate and key, as a renewal writes them."""
    chain, key = of.sign("server", *HERE)
    (folder / "tls.crt").write_bytes(chain)
    (folder / "tls.key").write_bytes(key)


TLS = '[tls]\ncertificate = "tls.crt"\nkey = "tls.key"\n'
TOKENS = f'[tokens]\nissuer = "{ISSUER}"\nkeys = "keys"\n'
FAST = "requests_per_s = 1e6\n"


def callers_file(folder: Path, *parts: str) -> Path:
    file = folder / "callers.toml"
    file.write_text("".join(parts))
    return file


# A provider


@dataclass
class Provider:
    """What a token provider lists, and how often it was asked; status 0 answers nothing at all."""

    keys: list[dict[str, Any]] = field(default_factory=list)
    status: int = 200
    asked: int = 0
    url: str = ""
    location: str = ""


@contextlib.contextmanager
def providing(*keys: dict[str, Any], tls: ssl.SSLContext | None = None) -> Iterator[Provider]:
    """A real HTTP or HTTPS server on this machine."""
    provider = Provider(list(keys))

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            provider.asked += 1
            self.send_response(provider.status)
            if provider.location:
                self.send_header("Location", provider.location)
            self.end_headers()
            self.wfile.write(json.dumps({"keys": provider.keys}).encode())

        def handle(self) -> None:
            with contextlib.suppress(ssl.SSLError, ConnectionError):  # who does not trust us goes away
                super().handle()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    provider.url = f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}/keys"
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield provider
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
