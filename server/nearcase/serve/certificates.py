"""Callers known by their certificate: its names, and a table that says what each may do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.x509.oid import NameOID

from nearcase.errors import NotAllowed
from nearcase.serve.tokens import LEEWAY_S

if TYPE_CHECKING:
    from nearcase.clock import Clock
    from nearcase.serve.caller import Caller
    from nearcase.serve.context import Context

PREFIXES = ("dns:", "uri:", "email:", "cn:")
"""Kinds of names in a certificate; the kind is written with the name, so that no kind can pass for another."""


class Certificates:
    """Makes callers of certificates, which TLS has verified.

    Args:
        table: Each name that is known, with its caller.
        clock: Ends a connection's rights when its certificate ends.
    """

    def __init__(self, table: Mapping[str, Caller], clock: Clock) -> None:
        self._table, self._clock = table, clock

    def caller(self, context: Context) -> Caller:
        """Returns whom the certificate of the connection names.

        Raises:
            NotAllowed: There is none, it has expired, or it names nobody, or two.
        """
        given = list(context.auth_context().get("x509_pem_cert") or ())
        if len(given) != 1:
            raise NotAllowed("neither a token nor a certificate was given")
        names, starts_s, ends_s = _read(given[0])
        if not starts_s - LEEWAY_S <= self._clock.now_s() <= ends_s + LEEWAY_S:
            raise NotAllowed("the certificate of the connection has expired")
        found = {self._table[name] for name in names if name in self._table}
        if len(found) != 1:
            raise NotAllowed("the certificate names nobody who is known" if not found else "the certificate names two")
        return replace(found.pop(), until_s=ends_s + LEEWAY_S)


@lru_cache(maxsize=1024)
def _read(pem: bytes) -> tuple[frozenset[str], float, float]:
    """Returns the names, and from when to when it is valid; kept, since a connection shows one with every call."""
    try:
        certificate = x509.load_pem_x509_certificate(pem)
        names = frozenset(_names(certificate))
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType, x509.InvalidVersion):
        raise NotAllowed("the certificate can not be read") from None
    return names, certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp()


def _names(certificate: x509.Certificate) -> Iterator[str]:
    for attribute in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME):
        yield f"cn:{attribute.value!s}"
    try:
        alternative = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return
    kinds: tuple[tuple[str, Any], ...] = (
        ("dns", x509.DNSName),
        ("uri", x509.UniformResourceIdentifier),
        ("email", x509.RFC822Name),
    )
    for kind, of in kinds:
        for value in alternative.get_values_for_type(of):
            yield f"{kind}:{value.lower() if kind == 'dns' else value}"
