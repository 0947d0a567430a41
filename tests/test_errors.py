"""Errors name gRPC codes that exist, travel between processes whole, and cost a decoding child no gRPC."""

from __future__ import annotations

import pickle
import subprocess
import sys

import grpc
import pytest

from nearcase.errors import BY_CODE, InvalidInput, NearcaseError


@pytest.mark.parametrize("kind", [NearcaseError, *BY_CODE.values()])
def test_each_code_is_a_grpc_status_code(kind: type[NearcaseError]) -> None:
    assert kind.code in grpc.StatusCode.__members__


def test_each_kind_has_a_code_of_its_own() -> None:
    assert set(BY_CODE.values()) == set(NearcaseError.__subclasses__())
    assert {kind.code for kind in BY_CODE.values()} == set(BY_CODE)


def test_an_error_crosses_a_process_border_whole() -> None:
    error = pickle.loads(pickle.dumps(InvalidInput("two\nlines", reason="A_REASON", field="a_field")))
    assert (type(error), str(error), error.reason, error.field) == (InvalidInput, "two lines", "A_REASON", "a_field")


def test_a_decoding_child_starts_without_grpc() -> None:
    code = "import sys, nearcase.prepare, nearcase.intake.child; sys.exit('grpc' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
