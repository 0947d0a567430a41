"""The real onnxruntime-gpu package on a machine without a GPU: it would run on the CPU and say nothing."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import sysconfig
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nearcase.client import Client

ROOT = Path(__file__).parents[1]
WHEELS = ("onnxruntime-gpu>=1.30,<2", "cuda-bindings>=13,<14", "cuda-pathfinder")
pytestmark = [pytest.mark.slow, pytest.mark.system]


@pytest.fixture(scope="module")
def overlay(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This environment's packages, with onnxruntime-gpu in the place of onnxruntime."""
    if Path("/dev/nvidia0").exists():
        pytest.skip("this machine has an NVIDIA GPU; the test is of one without")
    folder = tmp_path_factory.mktemp("overlay")
    download = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "-q",
        "--no-deps",
        "-d",
        str(folder),
        *WHEELS,
    ]
    if subprocess.run(download, check=False).returncode:
        pytest.skip("pip can not bring the package onnxruntime-gpu")
    packages = folder / "packages"
    packages.mkdir()
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if not entry.name.startswith("onnxruntime"):
            (packages / entry.name).symlink_to(entry)
    for file in folder.glob("*.whl"):
        with zipfile.ZipFile(file) as wheel:
            wheel.extractall(packages)
    return packages


def command(overlay: Path, data: Path, **settings: str) -> tuple[list[str], dict[str, str]]:
    environment = {**os.environ, "PYTHONPATH": f"{overlay}:{ROOT / 'server'}"}
    environment |= {f"NEARCASE_{name.upper()}": value for name, value in settings.items()}
    serve = [sys.executable, "-S", "-m", "nearcase", "serve", "--data", str(data), "--listen", "127.0.0.1:0"]
    return serve, environment


@contextmanager
def server(overlay: Path, data: Path, **settings: str) -> Iterator[tuple[str, Path]]:
    arguments, environment = command(overlay, data, **settings)
    log = data.with_suffix(".log")
    with (
        log.open("w") as errors,
        subprocess.Popen(arguments, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        assert process.stdout
        try:
            line = next((line for line in process.stdout if "127.0.0.1:" in line), "")
            yield "127.0.0.1:" + line.split("127.0.0.1:")[1].split()[0].rstrip(".,;"), log
        finally:
            process.terminate()


def test_the_server_refuses_to_start_and_says_why(overlay: Path, tmp_path: Path) -> None:
    arguments, environment = command(overlay, tmp_path / "data", runtime="cuda")
    ended = subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode != 0
    assert "Expected GPU 0, got none: Expected cudaSetDevice to succeed" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_onnxruntime_alone_would_have_run_on_the_cpu_and_ours_refuses(overlay: Path) -> None:
    folder = ROOT / "models" / "zoo" / "efficientnet-lite0"
    theirs = f"""
import onnxruntime as o
o.set_default_logger_severity(4)
names = ["CUDAExecutionProvider", "CPUExecutionProvider"]
session = o.InferenceSession({str(folder / "encoder.onnx")!r}, providers=names)
print(o.get_available_providers(), session.get_providers())
"""
    ours = f"""
from pathlib import Path
from nearcase.encode.card import read_card
from nearcase.encode.session import CUDA, open_session
from nearcase.errors import Unready
try:
    open_session(read_card(Path({str(folder)!r})), CUDA, {{}})
except Unready as error:
    print(error.reason)
"""
    environment = {**os.environ, "PYTHONPATH": f"{overlay}:{ROOT / 'server'}"}
    run = [sys.executable, "-S", "-c"]
    said = subprocess.run([*run, theirs], env=environment, capture_output=True, text=True, check=True).stdout
    assert "CUDAExecutionProvider" in said.split("]")[0]  # it lists CUDA ...
    assert said.rstrip().endswith("['CPUExecutionProvider']")  # ... and takes the CPU without a word
    said = subprocess.run([*run, ours], env=environment, capture_output=True, text=True, check=True).stdout
    assert said.splitlines()[-1] == "GPU_ABSENT"


def test_with_leave_it_runs_on_the_cpu_and_says_so(overlay: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        metrics = f"127.0.0.1:{free.getsockname()[1]}"
    settings = {"runtime": "cuda", "runtime_fallback": "1", "metrics_listen": metrics}
    with server(overlay, tmp_path / "data", **settings) as (address, log):
        with Client(address) as client:
            client.wait_ready(30)
            runtime = client.statistics().encoder.runtime
        with urllib.request.urlopen(f"http://{metrics}/metrics", timeout=10) as answer:
            shown = answer.read().decode()
        assert "CPU (fallback: cuda can not be had)" in runtime
        assert "running on the CPU" in log.read_text()
    assert "nearcase_runtime_fallback 1.0" in shown
    assert 'fallback="true"' in shown
