"""The whole MedImageInsight, 616 million random weights: from one command to the reference's embeddings."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as PillowImage

torch = pytest.importorskip("torch", reason="torch runs the network: pip install nearcase[models]")
pytest.importorskip("safetensors", reason="safetensors holds the weights: pip install nearcase[models]")
pytest.importorskip("tokenizers", reason="tokenizers reads words: pip install nearcase[text]")

from medimageinsight_files import random_weights, reference_batch, structured, write_checkpoint  # noqa: E402
from medimageinsight_reference import package_folder, reference_model  # noqa: E402

from nearcase_models.medimageinsight.export import pad  # noqa: E402
from nearcase_models.medimageinsight.shape import PUBLISHED  # noqa: E402
from nearcase_models.medimageinsight.tokenizer import clip_tokenizer  # noqa: E402

pytestmark = pytest.mark.slow

MOST_BYTES = 20 * 2**30
OTHER = "--allow-other-weights"
TEXTS = ("x-ray chest anteroposterior Pneumonia", "", "X-RAY CHEST ANTEROPOSTERIOR PNEUMONIA", "ct abdomen " * 60)
SHAPES = {"square": (480, 480), "wide": (300, 900), "tall": (1000, 333), "film": (3000, 2900), "colour": (350, 420, 3)}


def test_a_full_checkpoint_becomes_the_reference_in_one_command(tmp_path: Path) -> None:
    package_folder()  # skips before the minutes, not after them
    checkpoint = write_checkpoint(tmp_path / "medimageinsigt-v1.0.0.pt")
    pictures = {name: structured(number, shape) for number, (name, shape) in enumerate(SHAPES.items())}
    for name, picture in pictures.items():
        PillowImage.fromarray(picture).save(tmp_path / f"{name}.png")

    run(
        "nearcase_models", "import", "medimageinsight", "--checkpoint", checkpoint, "--out", tmp_path / "encoder", OTHER
    )
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 < MOST_BYTES
    words = [part for text in TEXTS for part in ("--text", text)]
    files = [tmp_path / f"{name}.png" for name in pictures]
    run("nearcase", "embed", *files, *words, "--encoder", tmp_path / "encoder", "--out", tmp_path / "found.npz")

    with np.load(tmp_path / "found.npz") as arrays:
        found = arrays["vectors"]
    expected = expected_vectors(list(pictures.values()))
    cosines = np.sum(found * expected, axis=1)
    assert cosines.min() >= 0.99999, cosines


def run(program: str, *options: object) -> None:
    command = [sys.executable, "-m", program, *(str(option) for option in options)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def expected_vectors(pictures: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
    """The reference's embeddings of the pictures and of the texts."""
    reference = reference_model(PUBLISHED, random_weights(PUBLISHED))
    tokenizer = clip_tokenizer(PUBLISHED.text.context)
    ids, mask = pad([tokenizer.encode(text).ids for text in TEXTS], PUBLISHED.text.context)
    with torch.inference_mode():
        images = torch.cat([reference.encode_image(reference_batch([picture])) for picture in pictures])
        texts = reference.encode_text({"input_ids": ids, "attention_mask": mask})
    found: NDArray[np.float32] = torch.cat([images, texts]).numpy()
    return found
