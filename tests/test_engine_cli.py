"""nearcase-models engine: what the chart runs before a server with TensorRT starts."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from fake_gpu import FakeTensorRt, HostGpu

from nearcase_models import engine_cli
from nearcase_models.engine_cli import engine_group


@pytest.fixture
def tensorrt(monkeypatch: pytest.MonkeyPatch) -> FakeTensorRt:
    """The part of TensorRT that nearcase uses, on a GPU of host memory: none is at hand."""
    gpu = HostGpu()
    module = FakeTensorRt(gpu)
    monkeypatch.setattr(engine_cli, "import_tensorrt", lambda: module)
    monkeypatch.setattr(engine_cli, "CudaRuntime", lambda number: gpu)
    monkeypatch.setattr("nearcase_models.engine.import_tensorrt", lambda: module)
    monkeypatch.setattr(engine_cli, "BUCKETS", (1, 2))
    return module


def build(encoder: Path, engines: Path, *more: str) -> Any:
    arguments = ["build", "--encoder", str(encoder), "--engines", str(engines), "--json", *more]
    done = CliRunner().invoke(engine_group, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_an_engine_is_built_once(tensorrt: FakeTensorRt, encoder_folder: Path, tmp_path: Path) -> None:
    engines = tmp_path / "engines"
    first = build(encoder_folder, engines)
    assert first["built"]
    assert first["cosine"] > 0.999
    assert build(encoder_folder, engines) == {"built": False, "cosine": None}
    assert build(encoder_folder, engines, "--force")["built"]
    listed = json.loads(CliRunner().invoke(engine_group, ["list", str(engines)]).stdout)
    assert [each["buckets"] for each in listed] == [[1, 2]]


def test_a_damaged_engine_is_built_again(tensorrt: FakeTensorRt, encoder_folder: Path, tmp_path: Path) -> None:
    engines = tmp_path / "engines"
    build(encoder_folder, engines)
    (file,) = engines.glob("*.engine")
    file.write_bytes(b"half")
    assert build(encoder_folder, engines)["built"]


def test_an_engine_that_others_may_write_is_built_again(
    tensorrt: FakeTensorRt, encoder_folder: Path, tmp_path: Path
) -> None:
    engines = tmp_path / "engines"
    build(encoder_folder, engines)
    (file,) = engines.glob("*.engine")
    os.chmod(file, 0o666)
    assert build(encoder_folder, engines)["built"]
