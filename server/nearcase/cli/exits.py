"""Exit codes: 0 done, 2 bad input (the user can mend it), 1 fault (the server or the machine)."""

from __future__ import annotations

from nearcase.errors import InvalidInput, NearcaseError, NotAllowed, NotFound, Unsupported

BAD_INPUT, FAULT = 2, 1


def exit_code(error: NearcaseError) -> int:
    """Returns 2 where the caller can mend it, else 1."""
    return BAD_INPUT if isinstance(error, (InvalidInput, Unsupported, NotFound, NotAllowed)) else FAULT
