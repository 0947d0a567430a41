"""The base install is the client and nothing else: the wheel, in an environment of its own, at the oldest versions."""

from __future__ import annotations

import subprocess
import tomllib
import zipfile
from pathlib import Path

import pytest
from environments import PROJECT, environment_in, installed_in, run
from packaging.requirements import Requirement

pytestmark = pytest.mark.system


@pytest.fixture(scope="session")
def client_python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python with the base install, each declared dependency at its lowest version."""
    declared = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["dependencies"]
    oldest = [
        f"{requirement.name}=={s.version}"
        for requirement in map(Requirement, declared)
        for s in requirement.specifier
        if s.operator == ">="
    ]
    return environment_in(tmp_path_factory.mktemp("client"), wheel, *oldest)


def test_client_imports_with_its_oldest_dependencies(client_python: Path) -> None:
    result = run(client_python, "import nearcase.client, nearcase.types, nearcase.errors")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_every_stub_imports(client_python: Path) -> None:
    services = "search", "decision", "library", "encoder"
    result = run(client_python, "\n".join(f"import nearcase.v1.{name}_pb2_grpc" for name in services))
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_base_install_brings_nothing_else(client_python: Path) -> None:
    assert installed_in(client_python) == {"nearcase", "grpcio", "protobuf", "typing_extensions"}  # last: for grpcio


def test_server_command_says_which_extra_is_missing(client_python: Path) -> None:
    command = [str(client_python.with_name("nearcase")), "serve"]
    result = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert result.returncode == 2
    assert "nearcase[server" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_wheel_holds_what_the_program_reads_and_no_tests(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert names >= {
        "nearcase/py.typed",
        "nearcase/zoo/efficientnet-lite0/encoder.onnx",
        "nearcase/zoo/efficientnet-lite0/card.toml",
        "nearcase/report/evidence.html.j2",
        "nearcase/demo/corpus.toml",
    }
    assert {Path(name).name for name in names if ".dist-info/licenses/" in name} == {"LICENSE", "NOTICE"}
    tops = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert tops == {"nearcase", "nearcase_models", "nearcase_eval"}
    assert not [name for name in names if Path(name).name.startswith(("test_", "conftest"))]


def test_wheel_holds_no_path_of_the_machine_that_built_it(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        texts = [name for name in archive.namelist() if not name.endswith((".onnx", ".npz", ".npy"))]
        assert not [name for name in texts if str(PROJECT).encode() in archive.read(name)]
