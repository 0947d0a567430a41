"""MedImageInsight's own code against the reference's, and what a checkpoint must be."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

torch = pytest.importorskip("torch", reason="torch runs the network: pip install nearcase[models]")
pytest.importorskip("safetensors", reason="safetensors holds the weights: pip install nearcase[models]")
pytest.importorskip("tokenizers", reason="tokenizers reads words: pip install nearcase[text]")

from medimageinsight_files import SMALL, random_weights, write_checkpoint  # noqa: E402
from medimageinsight_reference import reference_model, reference_names  # noqa: E402

from nearcase.errors import InvalidInput  # noqa: E402
from nearcase_models.medimageinsight.model import MedImageInsight  # noqa: E402
from nearcase_models.medimageinsight.names import published_name  # noqa: E402
from nearcase_models.medimageinsight.shape import PUBLISHED  # noqa: E402
from nearcase_models.medimageinsight.weights import count_tensors, load_weights  # noqa: E402

if TYPE_CHECKING:
    from torch import Tensor

PLAIN = "image_encoder.blocks.2.1.channel_block.ffn.fn.net.fc2.weight"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> MedImageInsight:
    return load_weights(write_checkpoint(tmp_path_factory.mktemp("weights") / "small", SMALL), SMALL)


def test_the_published_shape_has_the_published_size() -> None:
    assert count_tensors(PUBLISHED) == (601, 615_996_417)


def test_images_embed_as_the_reference_embeds_them(small: MedImageInsight) -> None:
    batch = torch.randn(3, 3, 480, 480, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = reference_model(SMALL, random_weights(SMALL)).encode_image(batch)
        found = small.image_side()(batch)
    assert (expected * found).sum(dim=1).min() >= 0.999999
    assert (expected @ expected.T - torch.eye(3)).max() < 0.99, "images that all embed the same prove nothing"


def test_texts_embed_as_the_reference_embeds_them(small: MedImageInsight) -> None:
    ids = torch.randint(0, 49_000, (4, 77), generator=torch.Generator().manual_seed(2))
    mask = torch.ones_like(ids)
    for row, length in enumerate((2, 9, 40, 77)):
        ids[row, 0], ids[row, length - 1 :], mask[row, length:] = 49_406, 49_407, 0
    with torch.inference_mode():
        expected = reference_model(SMALL, random_weights(SMALL)).encode_text({"input_ids": ids, "attention_mask": mask})
        found = small.text_side()(ids, mask)
        unpadded = small.text_side()(ids[1:2, :9], mask[1:2, :9])
    assert (expected * found).sum(dim=1).min() >= 0.999999
    assert float((expected[1] * unpadded[0]).sum()) >= 0.999999, "padding is seen"


def test_a_second_run_gives_the_same_bits(small: MedImageInsight) -> None:
    batch = torch.randn(2, 3, 480, 480, generator=torch.Generator().manual_seed(3))
    assert torch.equal(small.image_side()(batch), small.image_side()(batch))


def test_old_names_are_read_as_the_reference_reads_them() -> None:
    translate = reference_names()
    old = {_old_name(name): name for name in random_weights(SMALL)}
    assert len(set(old) & set(old.values())) < len(old) / 4, "the old names are the new ones"
    expected = translate(dict.fromkeys(old, torch.zeros(0)))
    assert {name: published_name(name) for name in old} == expected
    assert expected == old


def test_published_names_stay_as_they_are() -> None:
    assert all(published_name(name) == name for name in random_weights(SMALL))


def test_a_file_with_old_names_and_halves_gives_the_same_network(tmp_path: Path, small: MedImageInsight) -> None:
    def change(weights: dict[str, Tensor]) -> None:
        for name in list(weights):
            weights[_old_name(name)] = weights.pop(name).to(torch.float16)

    loaded = load_weights(write_checkpoint(tmp_path / "old.pt", SMALL, change=change), SMALL)
    batch = torch.randn(1, 3, 480, 480, generator=torch.Generator().manual_seed(4))
    assert float((loaded.image_side()(batch) * small.image_side()(batch)).sum()) > 0.9999
    assert loaded.lang_projection.dtype == torch.float32


def test_a_missing_tensor_is_named(tmp_path: Path) -> None:
    refused(tmp_path, lambda weights: weights.pop(PLAIN), PLAIN)


def test_an_extra_tensor_is_named(tmp_path: Path) -> None:
    refused(tmp_path, lambda weights: weights.update({"text_decoder.bias": torch.zeros(3)}), "text_decoder.bias")


def test_a_misshapen_tensor_is_named_with_both_shapes(tmp_path: Path) -> None:
    message = refused(tmp_path, lambda weights: weights.update({PLAIN: weights[PLAIN].T.contiguous()}), PLAIN)
    assert "(48, 192)" in message
    assert "(192, 48)" in message


def test_a_tensor_of_another_kind_is_named(tmp_path: Path) -> None:
    refused(tmp_path, lambda weights: weights.update({PLAIN: weights[PLAIN].to(torch.int32)}), PLAIN)


def test_a_tensor_that_is_not_finite_is_named(tmp_path: Path) -> None:
    refused(tmp_path, lambda weights: weights[PLAIN].view(-1)[5:6].fill_(torch.nan), PLAIN)


def test_a_tensor_under_two_names_is_named(tmp_path: Path) -> None:
    refused(tmp_path, lambda weights: weights.update(text_projection=torch.zeros(1)), "lang_projection")


@pytest.mark.parametrize("kept", [0, 5, 8, 100, 5_000, -1])
def test_a_cut_file_is_refused_in_one_line(tmp_path: Path, kept: int) -> None:
    whole = write_checkpoint(tmp_path / "whole", SMALL).read_bytes()
    (tmp_path / "cut").write_bytes(whole[:kept])
    refused_file(tmp_path / "cut", "safetensors")


def test_a_header_that_claims_too_much_is_refused(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(struct.pack("<Q", 1 << 62) + b"{}")
    refused_file(tmp_path / "large", "safetensors")


@pytest.mark.parametrize("old", [True, False])
def test_a_pickle_is_refused_unread(tmp_path: Path, old: bool) -> None:
    torch.save({"a": torch.zeros(1)}, tmp_path / "pickle", _use_new_zipfile_serialization=not old)
    refused_file(tmp_path / "pickle", "pickle")


def test_an_absent_file_is_refused(tmp_path: Path) -> None:
    refused_file(tmp_path / "absent", "checkpoint")


def refused(folder: Path, change: Callable[[dict[str, Tensor]], object], name: str) -> str:
    write_checkpoint(folder / "damaged", SMALL, change=change)
    return refused_file(folder / "damaged", name)


def refused_file(path: Path, word: str) -> str:
    with pytest.raises(InvalidInput) as refusal:
        load_weights(path, SMALL)
    message = str(refusal.value)
    assert word in message
    assert "\n" not in message
    assert len(message) < 300
    return message


def _old_name(name: str) -> str:
    """The oldest name of a tensor, by the table of the published facts."""
    parts = {
        "window_attn.fn": "attn",
        "channel_attn.fn": "attn",
        "window_attn.norm": "norm1",
        "channel_attn.norm": "norm1",
        "conv1.fn.dw": "cpe.0.proj",
        "conv2.fn.dw": "cpe.1.proj",
        "ffn.norm": "norm2",
        "ffn.fn.net": "mlp",
        "image_encoder.blocks": "visual.main_blocks",
        "image_encoder.convs": "visual.conv_embeds",
        "image_encoder.norms": "visual.norms",
        "spatial_block": "0",
        "channel_block": "1",
        "image_projection": "vision_projection",
        "lang_projection": "text_projection",
        "lang_encoder.": "text.",
    }
    for new, old in parts.items():
        name = name.replace(new, old)
    return name
