"""What can go wrong, who must act, and the gRPC code that says so.

    NearcaseError
    ├── InvalidInput   INVALID_ARGUMENT    the caller: this image or request can not be read
    ├── Unsupported    UNIMPLEMENTED       the caller: valid, but nothing here can do it
    ├── NotFound       NOT_FOUND           the caller: no such case, finding or upload
    ├── NotAllowed     PERMISSION_DENIED   the caller's administrator; UNAUTHENTICATED where it is not known who asks
    ├── Overloaded     RESOURCE_EXHAUSTED  the caller, later: a limit was reached
    └── Unready        UNAVAILABLE         the operator: a part of the server is down or mismatched

Messages are one line, say what was expected and what came, and hold no patient data. Codes are names here, so that a
decoding child, which raises these errors too, starts without gRPC.
"""

from __future__ import annotations


class NearcaseError(Exception):
    """Any refusal that nearcase makes on purpose.

    Args:
        message: One line without patient data.
        reason: UPPER_SNAKE_CASE code for machines, stable across versions (google.rpc.ErrorInfo.reason).
        field: The request field or file part that is at fault, if one is.
    """

    code = "INTERNAL"
    """Name of the grpc.StatusCode."""

    reason = "INTERNAL"

    def __init__(self, message: str, *, reason: str | None = None, field: str = "") -> None:
        super().__init__(" ".join(message.split()))
        self.reason = reason or type(self).reason
        self.field = field

    def __reduce__(self) -> tuple[object, ...]:
        """Keeps reason and field when the error crosses a process border."""
        return (_rebuild, (type(self), str(self), self.reason, self.field))


def _rebuild(kind: type[NearcaseError], message: str, reason: str, field: str) -> NearcaseError:
    return kind(message, reason=reason, field=field)


class InvalidInput(NearcaseError):
    """The bytes or the request can not be read as what they claim to be."""

    code = "INVALID_ARGUMENT"
    reason = "INVALID_INPUT"


class Unsupported(NearcaseError):
    """The request is valid, but no engine here does this."""

    code = "UNIMPLEMENTED"
    reason = "UNSUPPORTED"


class NotFound(NearcaseError):
    """What the request names does not exist here."""

    code = "NOT_FOUND"
    reason = "NOT_FOUND"


class NotAllowed(NearcaseError):
    """The caller may not do this; with the reason UNAUTHENTICATED, which is the code too, because nobody knows it."""

    code = "PERMISSION_DENIED"
    reason = "NOT_ALLOWED"

    def __init__(self, message: str, *, reason: str | None = None, field: str = "") -> None:
        super().__init__(message, reason=reason, field=field)
        if reason == "UNAUTHENTICATED":
            self.code = "UNAUTHENTICATED"


class Overloaded(NearcaseError):
    """A limit was reached; the same request may succeed later."""

    code = "RESOURCE_EXHAUSTED"
    reason = "OVERLOADED"


class Unready(NearcaseError):
    """A part that the request needs is not there, or does not fit the rest."""

    code = "UNAVAILABLE"
    reason = "UNREADY"


BY_CODE: dict[str, type[NearcaseError]] = {
    kind.code: kind for kind in (InvalidInput, Unsupported, NotFound, NotAllowed, Overloaded, Unready)
}
"""The error type that a client raises for the name of a status code; NearcaseError for any other code."""
