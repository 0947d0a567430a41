"""Which role a call needs; docs/security.md has the same table, and a test compares them. The rest is refused."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType

from nearcase.errors import InvalidInput

ROLES = frozenset({"search", "decide", "add", "erase", "audit", "admin"})
"""No role contains another: a caller has exactly those that it was given."""

OPEN = ("/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch")
"""Health tells no more than whether the server is ready, and probes have no token."""

_SEARCH, _DECIDE, _LIBRARY, _ENCODER = (
    f"/nearcase.v1.{name}Service/" for name in ("Search", "Decision", "Library", "Encoder")
)
_REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"

# Export, import and the check of recall touch the whole library and its embeddings, from which people can be
# recognised: they are an administrator's. Reading a case shows what a search shows.
NEEDED = MappingProxyType(
    {
        _SEARCH + "Search": {"search"},
        _SEARCH + "SearchStream": {"search"},
        _DECIDE + "ListFindings": {"decide"},
        _DECIDE + "Decide": {"decide"},
        _DECIDE + "DecideStream": {"decide"},
        _DECIDE + "GetRoc": {"decide"},
        _DECIDE + "ListOperatingPoints": {"decide"},
        _DECIDE + "GetRecord": {"decide", "audit"},
        _LIBRARY + "AddImages": {"add"},
        _LIBRARY + "GetUpload": {"add"},
        _LIBRARY + "GetCase": {"search", "add"},
        _LIBRARY + "ListCases": {"search"},
        _LIBRARY + "UpdateCase": {"add"},
        _LIBRARY + "MergePatients": {"add"},
        _LIBRARY + "EraseCases": {"erase"},
        _LIBRARY + "ListErasures": {"erase", "audit"},
        _LIBRARY + "ExportCases": {"admin"},
        _LIBRARY + "ImportCases": {"admin"},
        _LIBRARY + "CheckRecall": {"admin"},
        _LIBRARY + "GetStatistics": ROLES,
        _ENCODER + "DescribeEncoder": ROLES,
        _ENCODER + "EmbedImages": {"search"},
        _ENCODER + "EmbedTexts": {"search"},
        _REFLECTION: {"admin"},
    }
)
"""The roles of which a call needs one."""


def may(roles: frozenset[str], method: str) -> bool:
    """Returns whether a caller with these roles may make this call."""
    return not roles.isdisjoint(NEEDED.get(method, frozenset()))


def check_roles(roles: Sequence[str]) -> None:
    """Raises InvalidInput for a role that there is not, or none at all."""
    unknown = sorted(set(roles) - ROLES)
    if unknown or not roles:
        given = f"got {unknown[0]!r}" if unknown else "got none"
        raise InvalidInput(f"expected roles of {', '.join(sorted(ROLES))}, {given}", field="roles")
