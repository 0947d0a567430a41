"""The checked-in stubs are what protos/ generates, and the declared runtimes can load them."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

PROJECT = Path(__file__).parents[1]
STUBS = PROJECT / "server" / "nearcase" / "v1"


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """File name to content, made anew."""
    out = tmp_path_factory.mktemp("stubs")
    subprocess.run([sys.executable, PROJECT / "protos" / "generate.py", out], check=True, capture_output=True)
    return {path.name: path.read_bytes() for path in (out / "nearcase" / "v1").iterdir()}


def test_stubs_are_what_the_protos_generate(generated: dict[str, bytes]) -> None:
    checked_in = {path.name: path.read_bytes() for path in STUBS.glob("*_pb2*")}
    assert sorted(checked_in) == sorted(generated), "run `make stubs`, then remove what no .proto makes any more"
    stale = [name for name, content in generated.items() if checked_in[name] != content]
    assert not stale, "run `make stubs`"


def test_every_proto_has_stubs(generated: dict[str, bytes]) -> None:
    protos = {path.stem for path in (PROJECT / "protos").rglob("*.proto")}
    assert protos == {name.removesuffix("_pb2.py") for name in generated if name.endswith("_pb2.py")}


def test_protos_are_lint_clean() -> None:
    buf = Path(sys.executable).with_name("buf")
    result = subprocess.run([buf, "lint", PROJECT / "protos"], check=False, capture_output=True, text=True)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("package", "pattern"),
    [
        ("protobuf", r"# Protobuf Python Version: (\S+)"),
        ("grpcio", r"GRPC_GENERATED_VERSION = '(\S+)'"),
    ],
)
def test_declared_floor_is_the_version_that_the_stubs_demand(package: str, pattern: str) -> None:
    demanded = {found for path in STUBS.glob("*_pb2*.py") for found in re.findall(pattern, path.read_text())}
    assert len(demanded) == 1
    declared = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["dependencies"]
    (specifier,) = (r.specifier for r in map(Requirement, declared) if r.name == package)
    (floor,) = (Version(s.version) for s in specifier if s.operator == ">=")
    assert floor == Version(demanded.pop())
