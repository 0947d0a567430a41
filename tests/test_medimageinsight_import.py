"""From a checkpoint to a served encoder: whole or not at all, exact, and honest about whose weights it holds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PillowImage

torch = pytest.importorskip("torch", reason="torch runs the network: pip install nearcase[models]")
pytest.importorskip("safetensors", reason="safetensors holds the weights: pip install nearcase[models]")
pytest.importorskip("tokenizers", reason="tokenizers reads words: pip install nearcase[text]")

from medimageinsight_files import SMALL, random_weights, reference_batch, structured, write_checkpoint  # noqa: E402
from medimageinsight_reference import reference_model  # noqa: E402

from nearcase.cli.embed import embed_files  # noqa: E402
from nearcase.encode.card import read_card  # noqa: E402
from nearcase.encode.onnx_file import refuse_external_data  # noqa: E402
from nearcase.encode.runtime import open_encoder  # noqa: E402
from nearcase.encode.text import OnnxText  # noqa: E402
from nearcase.errors import InvalidInput  # noqa: E402
from nearcase_models.medimageinsight.export import pad  # noqa: E402
from nearcase_models.medimageinsight.importing import OtherWeights, import_medimageinsight  # noqa: E402
from nearcase_models.medimageinsight.published import LIMIT  # noqa: E402
from nearcase_models.medimageinsight.tokenizer import clip_tokenizer  # noqa: E402

SHAPES = {
    "square": (480, 480),
    "wide": (300, 900),
    "tall": (1000, 333),
    "small": (21, 34),
    "film": (3000, 2900),
    "colour": (350, 420, 3),
}


def test_files_embed_as_the_reference_embeds_them(words_encoder_folder: Path, tmp_path: Path) -> None:
    given = {name: structured(number, shape) for number, (name, shape) in enumerate(SHAPES.items())}
    for name, picture in given.items():
        PillowImage.fromarray(picture).save(tmp_path / f"{name}.png")
    paths = [tmp_path / f"{name}.png" for name in given]
    found, refused = embed_files(paths, open_encoder(words_encoder_folder), None)
    assert not refused
    with torch.inference_mode():
        expected = reference_model(SMALL, random_weights(SMALL)).encode_image(reference_batch(list(given.values())))
    cosines = np.sum(np.stack([found[path] for path in paths]) * expected.numpy(), axis=1)
    assert cosines.min() >= 0.99999, dict(zip(given, cosines, strict=True))


def test_texts_embed_as_the_reference_embeds_them(words_encoder_folder: Path) -> None:
    texts = ["x-ray chest anteroposterior Pneumonia", "", "CT ABDOMEN " * 60, "naïve café, 12.5 mm"]
    ids, mask = pad([clip_tokenizer(77).encode(text).ids for text in texts], 77)
    with torch.inference_mode():
        reference = reference_model(SMALL, random_weights(SMALL))
        expected = reference.encode_text({"input_ids": ids, "attention_mask": mask}).numpy()
    found = OnnxText(read_card(words_encoder_folder)).embed_texts(texts)
    assert np.sum(found * expected, axis=1).min() >= 0.99999


def test_other_weights_say_so_on_the_card(words_encoder_folder: Path) -> None:
    card = read_card(words_encoder_folder)
    assert card.name == "medimageinsight-other-weights"
    assert card.weights is not None
    assert not card.weights.are_published
    assert card.weights.cosine < LIMIT
    assert "not medical, not validated" in card.statement
    assert not card.is_medical
    assert card.text is not None
    assert card.text.log_scale == pytest.approx(4.5)
    assert card.recipe.identity == "native480-1-480"


def test_both_networks_hold_their_weights(words_encoder_folder: Path) -> None:
    for name in ("encoder.onnx", "text.onnx"):
        refuse_external_data(words_encoder_folder / name)
        content = (words_encoder_folder / name).read_bytes()
        assert b"site-packages" not in content
        assert b"medimageinsight/" not in content


def test_weights_that_are_not_the_published_ones_are_refused_unless_said(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "other", SMALL)
    with pytest.raises(InvalidInput, match=r"published weights.*cosine -?0\.\d+.*--allow-other-weights") as refused:
        import_medimageinsight(checkpoint, tmp_path / "out", shape=SMALL)
    assert "\n" not in str(refused.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other"]


def test_the_users_word_for_other_weights_is_on_the_card_and_words_can_be_left_out(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    card = import_medimageinsight(
        write_checkpoint(tmp_path / "tuned", SMALL),
        tmp_path / "out",
        recipe="azure512q75",
        shape=SMALL,
        other_weights=OtherWeights("Fine-tuned on the films of one site, for its research.", "MIT"),
        with_text=False,
        told=lambda stage, done, total: told.append((stage, done, total)),
    )
    assert (card.statement, card.licence) == ("Fine-tuned on the films of one site, for its research.", "MIT")
    assert card.is_medical
    assert card.text is None
    assert "words" not in card.description
    assert card.recipe.identity == "azure512q75-1-480"
    assert sorted(path.name for path in card.folder.iterdir()) == ["card.toml", "encoder.onnx", "golden.npz"]
    assert ("reading the weights", told[0][2], told[0][2]) in told


def test_a_damaged_checkpoint_leaves_nothing_behind(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "cut", SMALL, change=lambda weights: weights.pop("logit_scale"))
    with pytest.raises(InvalidInput, match="logit_scale"):
        import_medimageinsight(checkpoint, tmp_path / "out", shape=SMALL, other_weights=OtherWeights())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cut"]


def test_weights_that_embed_nothing_are_refused(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "zero", SMALL, change=lambda weights: weights["lang_projection"].zero_())
    with pytest.raises(InvalidInput, match=r"parity with torch.*nan"):
        import_medimageinsight(checkpoint, tmp_path / "out", shape=SMALL, other_weights=OtherWeights())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["zero"]


def test_a_folder_that_is_there_is_not_touched(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="new folder"):
        import_medimageinsight(tmp_path / "absent", tmp_path, shape=SMALL)


def test_another_recipe_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="native480 or azure512q75, got stretch"):
        import_medimageinsight(tmp_path / "absent", tmp_path / "out", recipe="stretch")
