"""Who asks: set once for each request, before its body is read, and read wherever it matters."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from contextvars import ContextVar
from dataclasses import dataclass, field

from nearcase.errors import InvalidInput, NotAllowed

TENANT_KEY = "nearcase-tenant"
"""The gRPC metadata key that a trusted gateway sets."""

_TENANT = re.compile(r"[a-z0-9-]{1,64}")

Metadata = Iterable[tuple[str, str | bytes]]


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, and for whom; an empty tenant is a server's only one."""

    name: str = ""
    tenant: str = ""
    roles: frozenset[str] = frozenset()
    until_s: float = field(default=math.inf, compare=False)
    """When the token or certificate expires, leeway included: whose it is does not depend on it."""


_current: ContextVar[Caller] = ContextVar("caller", default=Caller())  # noqa: B039 (frozen)


def current() -> Caller:
    """Returns who asks in this request; nobody, outside of one."""
    return _current.get()


def enter(caller: Caller) -> None:
    """Tells who asks in this request; each runs in a task of its own, and what is set here ends with it."""
    _current.set(caller)


def check_valid(now_s: float) -> None:
    """Refuses to go on with a call whose token or certificate has expired since it began; raises NotAllowed."""
    if now_s > current().until_s:
        message = "the token or certificate of this call has expired; begin again with one that is valid now"
        raise NotAllowed(message, reason="UNAUTHENTICATED")


def is_tenant(name: object) -> bool:
    """Returns whether this can be the name of a tenant: 1 to 64 letters a-z, digits and hyphens."""
    return isinstance(name, str) and bool(_TENANT.fullmatch(name))


def anyone(metadata: Metadata, *, with_tenants: bool) -> Caller:
    """Returns the caller of a server that asks nobody who they are.

    Args:
        metadata: Of the request.
        with_tenants: Each request must name its tenant; without, none may.

    Raises:
        InvalidInput: It does not, or does.
    """
    given = values(metadata, TENANT_KEY)
    if not with_tenants:
        no_tenant(metadata)
        return Caller()
    if len(given) != 1 or not isinstance(given[0], str) or not is_tenant(given[0]):
        message = f"expected the metadata {TENANT_KEY} once, of 1 to 64 letters a-z, digits and hyphens"
        raise InvalidInput(message, reason="TENANT")
    return Caller(tenant=given[0])


def no_tenant(metadata: Metadata, *, because: str = "this server has one tenant") -> None:
    """Refuses a request that names a tenant; raises InvalidInput."""
    if values(metadata, TENANT_KEY):
        raise InvalidInput(f"{because}, and the request names one", reason="TENANT")


def values(metadata: Metadata, key: str) -> list[str | bytes]:
    """Returns what the metadata holds under a key, which may stand there more than once."""
    return [value for name, value in metadata if name == key]
