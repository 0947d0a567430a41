"""A checkpoint of MedImageInsight -> an encoder's folder with both towers, whole or not at all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from tokenizers import Tokenizer

from nearcase.encode.card import Card
from nearcase.encode.card_tables import TextTower, Weights
from nearcase.encode.preprocess import AZURE512Q75, NATIVE480, RECIPES, Recipe
from nearcase.errors import InvalidInput
from nearcase_models.artefact import Identity, Made, parity_text, write_artefact
from nearcase_models.export import OPSET
from nearcase_models.golden import drawn_images
from nearcase_models.medimageinsight.export import BATCHES, export_image, export_text, pad
from nearcase_models.medimageinsight.model import MedImageInsight, TextEncoder
from nearcase_models.medimageinsight.published import LIMIT, TEXT, published_cosine
from nearcase_models.medimageinsight.shape import MEAN, PUBLISHED, STD, Shape
from nearcase_models.medimageinsight.tokenizer import clip_tokenizer
from nearcase_models.medimageinsight.weights import count_tensors, file_sha256, load_weights
from nearcase_models.towers import text_table, weights_table

RECIPE_NAMES = (NATIVE480[0], AZURE512Q75[0])
GOLDEN_TEXTS = (TEXT, TEXT.upper(), "", "ct abdomen " * 60, "Röntgen thorax p.a., 12.5 mm")
"""What the text tower must reproduce: plain, in capitals, empty, longer than the context, and other letters."""

_ARCHITECTURE = "MedImageInsight (arXiv 2410.06542): a DaViT of 361 million parameters for images"
_WORDS_TOO = " and a transformer of 252 million for words"
_PUBLISHED = Identity(
    name="medimageinsight",
    description="",
    origin="Microsoft: medimageinsigt-v1.0.0.pt of the model MedImageInsight in Azure's registry",
    licence="MIT",
    statement="MedImageInsight, a medical image encoder for research: not validated for diagnosis, no medical device.",
    is_medical=True,
)
_OTHER = Identity(
    name="medimageinsight-other-weights",
    description="",
    origin="a checkpoint of the user's in MedImageInsight's architecture, not the published one",
    licence="not stated",
    statement="MedImageInsight's architecture with weights of unknown training: not medical, not validated.",
)

Told = Callable[[str, int, int], object]
"""Called as work goes on: what is done now, how many parts of it are done, and of how many."""


@dataclass(frozen=True, slots=True)
class OtherWeights:
    """The user's word for weights that are not the published ones: fine-tuned, or random.

    With a statement they are called medical, as the user takes responsibility for; without one they are not.
    """

    statement: str = ""  # one sentence of intended use
    licence: str = ""


def import_medimageinsight(
    checkpoint: Path,
    out: Path,
    *,
    recipe: str = NATIVE480[0],
    other_weights: OtherWeights | None = None,
    with_text: bool = True,
    shape: Shape = PUBLISHED,
    told: Told = lambda stage, done, total: None,
) -> Card:
    """Writes the encoder's folder and returns its card.

    Args:
        checkpoint: The published medimageinsigt-v1.0.0.pt, which is a safetensors file, or one of its shape.
        out: The folder, which must not exist.
        recipe: native480, the model's own transform, or azure512q75, what Microsoft's endpoint does.
        other_weights: Set it to import weights that do not give the published text embedding.
        with_text: False leaves the text tower out, which takes 1 GB of a server's memory.
        shape: Other than the published one for small networks of the same kind.
        told: Told how far the work is.

    Raises:
        InvalidInput: The file is not a whole checkpoint, its weights are not the published ones, `out` exists, or an
            exported file is not at parity.
    """
    if recipe not in RECIPE_NAMES:
        raise InvalidInput(f"Expected the recipe {' or '.join(RECIPE_NAMES)}, got {recipe}", field="recipe")
    if out.exists():
        raise InvalidInput(f"Expected a new folder, got {out.name}, which is there already", field="out")
    tensors, _ = count_tensors(shape)
    done = iter(range(1, tensors + 1))
    model = load_weights(checkpoint, shape, lambda: told("reading the weights", next(done), tensors))
    tokenizer = clip_tokenizer(shape.text.context)
    cosine = published_cosine(model.text_side(), tokenizer)
    _check_published(cosine, other_weights)
    identity = _identity(cosine, other_weights, with_text=with_text)
    told("hashing the checkpoint", 0, 1)
    weights = weights_table(Weights(file_sha256(checkpoint), cosine >= LIMIT, cosine))

    def build(folder: Path) -> Made:
        more = _build_text(model, tokenizer, shape, folder, told) if with_text else ""
        del model.lang_encoder  # a gigabyte that the larger export can use
        return _build_image(model, shape, recipe, folder, weights + more, told)

    return write_artefact(out, identity, build)


def _check_published(cosine: float, other: OtherWeights | None) -> None:
    if not cosine >= LIMIT and other is None:  # true for NaN
        raise InvalidInput(
            f"Expected the published weights, whose embedding of {TEXT!r} is known, got other ones (cosine "
            f"{cosine:.6f}, limit {LIMIT}); fine-tuned weights are imported with --allow-other-weights",
            field="checkpoint",
        )


def _identity(cosine: float, other: OtherWeights | None, *, with_text: bool) -> Identity:
    base = _PUBLISHED if cosine >= LIMIT else _OTHER
    said = other if base is _OTHER and other else OtherWeights()
    return Identity(
        name=base.name,
        description=f"{_ARCHITECTURE}{_WORDS_TOO if with_text else ''}; unit length is part of each network.",
        origin=base.origin,
        licence=said.licence or base.licence,
        statement=said.statement or base.statement,
        is_medical=base.is_medical or bool(said.statement),
    )


def _build_text(model: MedImageInsight, tokenizer: Tokenizer, shape: Shape, folder: Path, told: Told) -> str:
    """Writes text.onnx, tokenizer.json and golden_text.npz, and returns the card's table of them."""
    text = model.text_side()
    told("exporting the text tower", 0, 1)
    export_text(text, tokenizer, shape.text.context, folder / "text.onnx")
    (folder / "tokenizer.json").write_text(tokenizer.to_str(), "utf-8")
    embeddings = _embed_padded(text, tokenizer, shape.text.context)
    np.savez_compressed(folder / "golden_text.npz", texts=np.array(GOLDEN_TEXTS), embeddings=embeddings)
    network, words = (file_sha256(folder / name) for name in ("text.onnx", "tokenizer.json"))
    return text_table(TextTower(network, words, shape.text.context, float(model.logit_scale)))


def _embed_padded(text: TextEncoder, tokenizer: Tokenizer, context: int) -> np.ndarray:
    """Embeddings of the golden texts as the reference makes them, padded to the whole context."""
    ids, mask = pad([tokenizer.encode(each).ids for each in GOLDEN_TEXTS], context)
    with torch.inference_mode():
        found: np.ndarray = text(ids, mask).numpy()
    return found


def _build_image(model: MedImageInsight, shape: Shape, recipe: str, folder: Path, more: str, told: Told) -> Made:
    version = next(version for name, version in RECIPES if name == recipe)
    made = Recipe(recipe, version, size_px=RECIPES[recipe, version] or 0, mean=MEAN, std=STD)
    told("exporting the image tower", 0, 1)
    difference = export_image(model.image_side(), made.input_shape, folder / "encoder.onnx")
    told("embedding the golden images", 0, 1)
    against = f"torch {torch.__version__.split('+')[0]}, onnxruntime {onnxruntime.__version__}"
    return Made(
        dimension=shape.dimension,
        opset=OPSET,
        precision="fp32",
        recipe=made,
        golden=drawn_images(),
        more=parity_text(against, BATCHES, difference) + more,
    )
