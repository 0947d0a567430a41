"""What every test shares: how hypothesis searches, and where the real artefacts lie."""

from __future__ import annotations

import importlib.util
import os
import tomllib
from pathlib import Path

import pytest
from environments import PROJECT, pip
from hypothesis import HealthCheck, settings

# No deadline and no "too slow": both measure how busy the machine is. In CI every run draws the same examples, so that
# a failure there is a failure here.
settings.register_profile("local", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("local"), derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")


@pytest.fixture(scope="session")
def encoder_folder() -> Path:
    """The committed default encoder."""
    return Path(__file__).parents[1] / "models" / "zoo" / "efficientnet-lite0"


@pytest.fixture(scope="session")
def words_encoder_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder of images and words: a small MedImageInsight with random weights, as the importer writes it."""
    pytest.importorskip("torch", reason="torch exports the network: pip install nearcase[models]")
    pytest.importorskip("safetensors", reason="safetensors holds the weights: pip install nearcase[models]")
    pytest.importorskip("tokenizers", reason="tokenizers reads words: pip install nearcase[text]")
    from medimageinsight_files import import_small

    return import_small(tmp_path_factory.mktemp("words"))


@pytest.fixture(scope="session")
def pydicom_data() -> Path:
    """The folder with the real DICOM files of the pydicom-data package."""
    return _package_folder("data_store") / "data"


@pytest.fixture(scope="session")
def pydicom_files() -> Path:
    """The folder with the small real DICOM files that come with pydicom itself."""
    return _package_folder("pydicom") / "data" / "test_files"


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Skips where no package can be fetched; after it, a failing pip is a failing test."""
    (backend,) = tomllib.loads((PROJECT / "pyproject.toml").read_text())["build-system"]["requires"]
    probe = pip("download", "--no-deps", "--dest", tmp_path_factory.mktemp("probe"), backend)
    if probe.returncode != 0:
        pytest.skip("pip can not reach a package registry from here")


@pytest.fixture(scope="session")
def wheel(registry: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout, built once for all tests that install it."""
    out = tmp_path_factory.mktemp("wheel")
    built = pip("wheel", "--no-deps", "--wheel-dir", out, PROJECT)
    assert built.returncode == 0, built.stderr
    (path,) = out.glob("nearcase-*.whl")
    return path


def _package_folder(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"the package that holds {name} is not installed: pip install nearcase[demo]")
    return Path(spec.submodule_search_locations[0])
